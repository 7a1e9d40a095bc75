export async function fetchRun(folder) {
  const get = (name) => fetch(`${folder}/${name}`);
  const [config, weights] = await Promise.all([
    get("config.json").then((r) => r.text()),
    get("model.safetensors").then((r) => r.arrayBuffer()),
  ]);
  return { config, weights: new Uint8Array(weights) };
}
