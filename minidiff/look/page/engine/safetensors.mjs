// Reads the two files of a run folder: config.json and model.safetensors. What does not fit is
// refused with one line that says what was found and what to do.
//
// The format (huggingface.co/docs/safetensors): 8 bytes length n, n bytes of JSON that maps a name
// to {dtype, shape, data_offsets}, then the numbers, little-endian like every browser's own arrays.

const SIZES = { F32: 4, BF16: 2, F16: 2, I8: 1 };

/** name -> {dtype, shape, bytes}; nothing is copied or converted yet. */
export function readSafetensors(file) {
  const length =
    file.length < 8
      ? Infinity
      : Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  if (length > file.length - 8)
    throw new Error(
      "this is no whole .safetensors file: choose the model.safetensors of a run folder",
    );
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(file.subarray(8, 8 + length)));
  } catch {
    throw new Error("this is no .safetensors file: choose the model.safetensors of a run folder");
  }
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: range }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = file.subarray(8 + length + range[0], 8 + length + range[1]);
    const count = shape.reduce((a, b) => a * b, 1);
    if (!(dtype in SIZES))
      throw new Error(
        `${name} has numbers of type ${dtype}: the page reads ${Object.keys(SIZES).join(", ")}`,
      );
    if (bytes.length !== count * SIZES[dtype])
      throw new Error(`${name} is cut short: the file is not whole, copy it again`);
    tensors.set(name, { dtype, shape, bytes });
  }
  return tensors;
}

/** Write a tensor's numbers into a Float32Array. `scale` holds one factor a row, for I8. */
export function toFloat32({ dtype, shape, bytes }, out, scale = null) {
  const whole = new Uint8Array(bytes).buffer; // a copy starts where every type may
  if (dtype === "F32") out.set(new Float32Array(whole));
  else if (dtype === "BF16") {
    const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
    new Uint16Array(whole).forEach((half, i) => (bits[i] = half << 16)); // a cut float32
  } else if (dtype === "F16")
    new Uint16Array(whole).forEach((half, i) => (out[i] = fromHalf(half)));
  else {
    const columns = shape.at(-1);
    new Int8Array(whole).forEach((value, i) => (out[i] = value * scale[Math.floor(i / columns)]));
  }
  return out;
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 31,
    fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
}

const MILLION = 1e6,
  MOST_PARAMETERS = 60 * MILLION; // 240 MB of float32: what a phone still holds

/** The shape of a model from the text of config.json, or an error of one line. */
export function readConfig(text) {
  let settings;
  try {
    settings = JSON.parse(text);
  } catch {
    throw new Error("config.json is not JSON: choose the config.json of a run folder");
  }
  const config = settings?.model;
  if (!config?.attention)
    throw new Error(
      "config.json describes no model of minidiff: choose a folder that `minidiff train` wrote",
    );
  const { attention, vocab_size: vocab, n_embd: D, head_dim: d, n_head: h, n_kv_head: kv } = config;
  if (!["softmax", "diff_v2"].includes(attention))
    throw new Error(
      `attention "${attention}" is not drawn here: the page reads softmax and diff_v2`,
    );
  if (vocab !== 257)
    throw new Error(
      `${vocab} tokens in place of 256 bytes and BOS: the page cannot read this model's text`,
    );
  for (const [name, value] of Object.entries({ n_embd: D, head_dim: d }))
    if (!(value > 0) || value % 4)
      throw new Error(`${name} = ${value}: the page reads sizes that are a multiple of 4`);
  for (const name of ["n_layer", "n_head", "n_kv_head", "block_size", "rope_theta"])
    if (!(config[name] > 0)) throw new Error(`config.json gives no ${name}: was it edited?`);
  if (h % kv)
    throw new Error(
      `n_head = ${h} is no multiple of n_kv_head = ${kv}: a pair would straddle two groups`,
    );
  if (parameterCount(config) > MOST_PARAMETERS)
    throw new Error(
      `${Math.round(parameterCount(config) / MILLION)} million weights: the page holds up to ${MOST_PARAMETERS / MILLION} million`,
    );
  return config;
}

/** Width of SwiGLU, as minidiff/model.py rounds it. */
export const hiddenSize = (config) => 64 * Math.ceil((8 * config.n_embd) / 3 / 64);

/** name -> shape of every tensor of a model, as minidiff/model.py names them. */
export function tensorShapes(config) {
  const { n_layer, n_head: h, n_kv_head: kv, head_dim: d, n_embd: D, vocab_size } = config;
  const diff = config.attention === "diff_v2",
    hidden = hiddenSize(config);
  const block = {
    "attn_norm.weight": [D],
    "mlp_norm.weight": [D],
    "attn.q_proj.weight": [(diff ? 2 : 1) * h * d, D],
    "attn.k_proj.weight": [kv * d, D],
    "attn.v_proj.weight": [kv * d, D],
    "attn.o_proj.weight": [D, h * d],
    ...(diff && { "attn.lambda_proj.weight": [h, D] }),
    "mlp.w1.weight": [hidden, D],
    "mlp.w3.weight": [hidden, D],
    "mlp.w2.weight": [D, hidden],
  };
  const shapes = { "embed.weight": [vocab_size, D], "norm.weight": [D] };
  for (let layer = 0; layer < n_layer; layer++)
    for (const name in block) shapes[`blocks.${layer}.${name}`] = block[name];
  return shapes;
}

export const parameterCount = (config) =>
  Object.values(tensorShapes(config)).reduce(
    (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
    0,
  );
