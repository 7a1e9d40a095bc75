// The one product that takes the time, y = x W^T, in WebAssembly with 4 numbers an instruction.
// AssemblyScript; build.mjs compiles it into kernel.mjs. Its plain twin is matmul() in matmul.mjs.
//
// Pointers are bytes, strides are numbers from one row to the next, I must be a multiple of 4.

// @ts-ignore: decorator
@inline
function sum(a: v128): f32 {
  return (f32x4.extract_lane(a, 0) + f32x4.extract_lane(a, 1)) +
    (f32x4.extract_lane(a, 2) + f32x4.extract_lane(a, 3));
}
// @ts-ignore: decorator
@inline
function madd(a: v128, b: v128, c: v128): v128 { return f32x4.add(c, f32x4.mul(a, b)); }

/** y[t, o] = sum_i x[t, i] w[o, i] for t < T and o < O */
export function matmul(
  y: usize, yStride: i32, x: usize, xStride: i32, w: usize, wStride: i32, T: i32, I: i32, O: i32,
): void {
  const n: usize = <usize>I << 2, xs: usize = <usize>xStride << 2, ws: usize = <usize>wStride << 2;
  const ys: usize = <usize>yStride << 2;
  for (let t = 0; t < T; ) {
    const rows = T - t >= 4 ? 4 : 1;
    const x0 = x + <usize>t * xs, y0 = y + <usize>t * ys;
    if (rows == 4) quad(y0, ys, x0, xs, w, ws, n, O);
    else single(y0, x0, w, ws, n, O);
    t += rows;
  }
}

function quad(y: usize, ys: usize, x: usize, xs: usize, w: usize, ws: usize, n: usize, O: i32): void {
  const x1 = x + xs, x2 = x1 + xs, x3 = x2 + xs;
  let o = 0;
  for (; o + 2 <= O; o += 2) {
    const w0 = w + <usize>o * ws, w1 = w0 + ws;
    let a0 = f32x4.splat(0), a1 = a0, b0 = a0, b1 = a0, c0 = a0, c1 = a0, d0 = a0, d1 = a0;
    for (let i: usize = 0; i < n; i += 16) {
      const p = v128.load(w0 + i), q = v128.load(w1 + i);
      let r = v128.load(x + i);
      a0 = madd(r, p, a0); a1 = madd(r, q, a1);
      r = v128.load(x1 + i);
      b0 = madd(r, p, b0); b1 = madd(r, q, b1);
      r = v128.load(x2 + i);
      c0 = madd(r, p, c0); c1 = madd(r, q, c1);
      r = v128.load(x3 + i);
      d0 = madd(r, p, d0); d1 = madd(r, q, d1);
    }
    let out = y + (<usize>o << 2);
    f32.store(out, sum(a0)); f32.store(out, sum(a1), 4); out += ys;
    f32.store(out, sum(b0)); f32.store(out, sum(b1), 4); out += ys;
    f32.store(out, sum(c0)); f32.store(out, sum(c1), 4); out += ys;
    f32.store(out, sum(d0)); f32.store(out, sum(d1), 4);
  }
  if (o < O) for (let r: usize = 0; r < 4; r++)
    single(y + r * ys + (<usize>o << 2), x + r * xs, w + <usize>o * ws, ws, n, 1);
}

function single(y: usize, x: usize, w: usize, ws: usize, n: usize, O: i32): void {
  let o = 0;
  for (; o + 4 <= O; o += 4) {
    const w0 = w + <usize>o * ws, w1 = w0 + ws, w2 = w1 + ws, w3 = w2 + ws;
    let a = f32x4.splat(0), b = a, c = a, d = a;
    for (let i: usize = 0; i < n; i += 16) {
      const r = v128.load(x + i);
      a = madd(r, v128.load(w0 + i), a); b = madd(r, v128.load(w1 + i), b);
      c = madd(r, v128.load(w2 + i), c); d = madd(r, v128.load(w3 + i), d);
    }
    const out = y + (<usize>o << 2);
    f32.store(out, sum(a)); f32.store(out, sum(b), 4);
    f32.store(out, sum(c), 8); f32.store(out, sum(d), 12);
  }
  for (; o < O; o++) {
    const w0 = w + <usize>o * ws;
    let a = f32x4.splat(0);
    for (let i: usize = 0; i < n; i += 16) a = madd(v128.load(x + i), v128.load(w0 + i), a);
    f32.store(y + (<usize>o << 2), sum(a));
  }
}
