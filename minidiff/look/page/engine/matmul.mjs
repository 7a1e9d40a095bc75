// Memory for a model, and the one product it needs: WebAssembly where the browser has SIMD (all
// since 2023), the same in plain JavaScript elsewhere, some ten times slower.

import { KERNEL } from "./kernel.mjs";

const PAGE = 65536; // bytes, the unit of WebAssembly's memory

export class Arena {
  /** Room for so many numbers. Arrays are handed out once and never given back. */
  constructor(count, { simd = true } = {}) {
    const bytes = Uint8Array.from(atob(KERNEL), (letter) => letter.charCodeAt(0));
    const pages = Math.ceil((4 * count) / PAGE) + 1;
    this.simd = simd && globalThis.WebAssembly !== undefined && WebAssembly.validate(bytes);
    if (this.simd) {
      const memory = new WebAssembly.Memory({ initial: pages });
      const program = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
      this.kernel = program.exports.matmul;
      this.buffer = memory.buffer;
    } else this.buffer = new ArrayBuffer(pages * PAGE);
    this.used = 1024; // the kernel's own page of zeros lies below
  }

  /** A Float32Array of zeros that starts at a multiple of 16 bytes. */
  array(count) {
    const array = new Float32Array(this.buffer, this.used, count);
    this.used += 16 * Math.ceil(count / 4);
    return array;
  }

  /**
   * y[t, o] = sum_i x[t, i] w[o, i] for t < T, i < I, o < O, with I a multiple of 4. A place is
   * [array, first index, distance from one row to the next]; its array comes from this arena.
   */
  matmul([y, yAt, yStride], [x, xAt, xStride], [w, wAt, wStride], T, I, O) {
    if (this.simd) {
      const at = (array, index) => array.byteOffset + 4 * index;
      this.kernel(at(y, yAt), yStride, at(x, xAt), xStride, at(w, wAt), wStride, T, I, O);
      return;
    }
    for (let t = 0; t < T; t++)
      for (let o = 0; o < O; o++) {
        let a = 0,
          b = 0,
          xi = xAt + t * xStride,
          wi = wAt + o * wStride;
        for (const end = xi + I; xi < end; xi += 2, wi += 2) {
          a += x[xi] * w[wi]; // two sums: the processor need not wait for the last addition
          b += x[xi + 1] * w[wi + 1];
        }
        y[yAt + t * yStride + o] = a + b;
      }
  }
}
