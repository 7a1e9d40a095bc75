"""The page: its model against PyTorch, its own tests in Node, its bundle, the folder it becomes."""

import base64
import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minidiff import data, runs
from minidiff.look import probe
from minidiff.look.page import build
from minidiff.model import GPT, GPTConfig

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "minidiff" / "look" / "page"
SCRIPTS = ROOT / "tests" / "js"
TEXT = (ROOT / "minidiff" / "generate.py").read_text(encoding="utf-8")
CLOSE = 1e-4  # float32 sums in another order


def find_node():
    """A JavaScript engine: node itself, or the copy that comes with playwright; or None."""
    own = importlib.util.find_spec("playwright")
    copy = Path(own.origin).parent / "driver" / "node" if own else Path()
    return shutil.which("node") or (str(copy) if copy.is_file() else None)


NODE = find_node()
node_only = pytest.mark.skipif(NODE is None, reason="neither Node nor playwright is here")
npm_only = pytest.mark.skipif(
    NODE is None or not (PAGE / "node_modules").exists(), reason=f"run `npm ci` in {PAGE} first"
)


def node(*arguments, cwd=ROOT):
    done = subprocess.run([NODE, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reference(model, idx):
    """What tests/js/parity.mjs compares: name -> tensor, of one prompt idx (1, T)."""
    with torch.no_grad():
        logits = model(idx)[0][0].float()  # (T, V)
    losses = torch.nn.functional.cross_entropy(logits[:-1], idx[0, 1:], reduction="none")
    found = {"tokens": idx[0].float(), "logits": logits, "loss": losses}
    for layer, view in enumerate(probe.attention_maps(model, idx)):
        size = view.weights.abs()
        found[f"{layer}.first"] = (size[..., 0] / size.sum(-1)).T
        found[f"{layer}.rms"] = view.rms
        if view.lam is not None:
            found[f"{layer}.lam"] = view.lam
        for head in range(len(view.weights)):
            for name in ("a1", "a2", "weights"):
                if getattr(view, name) is not None:
                    found[f"{layer}.{head}.{name}"] = getattr(view, name)[head]
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def parity(folder, tmp_path, length, *how):
    """The page's largest errors on a run folder: quantity -> error."""
    model, path = runs.load_run(folder), tmp_path / "reference.safetensors"
    save_file(reference(model, data.encode(TEXT[: length - 1])), path)
    worst = json.loads(node(SCRIPTS / "parity.mjs", folder, path, *how))
    expected = {"logits", "loss", "first", "rms", "a1", "weights"}
    if model.config.attention == "diff_v2":
        expected |= {"a2", "lam"}
    assert expected == worst.keys() - {"simd", "ms"}
    assert worst.pop("simd") == (not how)
    return {name: error for name, error in worst.items() if name != "ms"}


def store(model, folder):
    """A run folder as `minidiff train` leaves it, weights in float32."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model": vars(model.config)}), encoding="utf-8")
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


# ---- The model ---------------------------------------------------------------------------------


@pytest.mark.slow
@node_only
@pytest.mark.parametrize("name", build.MODELS.values())
@pytest.mark.parametrize("length", [3, 150])
def test_shipped_models_agree_with_pytorch(name, length, tmp_path):
    worst = parity(build.SHIPPED / name, tmp_path, length)
    assert max(worst.values()) < CLOSE, worst


@node_only
@pytest.mark.parametrize("how", [(), ("scalar",)], ids=["simd", "plain"])
@pytest.mark.parametrize(
    "shape",
    [
        {"attention": "diff_v2", "n_head": 4, "n_kv_head": 2, "head_dim": 32, "n_embd": 128},
        {"attention": "diff_v2", "n_head": 3, "n_kv_head": 3, "head_dim": 12, "n_embd": 20},
        {"attention": "diff_v2", "n_head": 6, "n_kv_head": 1, "head_dim": 4, "n_embd": 64},
        {"attention": "softmax", "n_head": 6, "n_kv_head": 3, "head_dim": 8, "n_embd": 36},
    ],
    ids=lambda shape: "-".join(map(str, shape.values())),
)
def test_models_of_other_shapes_agree_with_pytorch(shape, how, tmp_path):
    model = GPT(GPTConfig(n_layer=2, block_size=61, rope_theta=500.0, **shape))
    for parameter in model.parameters():  # larger weights, so that maps are not uniform
        torch.nn.init.normal_(parameter, 0.5 if parameter.dim() == 1 else 0.0, 0.15)
    worst = parity(store(model, tmp_path / "run"), tmp_path, 61, *how)
    assert max(worst.values()) < CLOSE, worst


@node_only
def test_lambda_held_in_all_heads_is_what_pytorch_computes(tmp_path):
    """A projection of zeros gives the logit 0, and so lambda = 0.5 everywhere."""
    shape = {"n_layer": 3, "n_head": 4, "n_kv_head": 2, "head_dim": 16, "n_embd": 64}
    model = GPT(GPTConfig(attention="diff_v2", block_size=64, **shape))
    run = store(model, tmp_path / "run")
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.lambda_proj.weight)
    path = tmp_path / "reference.safetensors"
    save_file(reference(model, data.encode(TEXT[:63])), path)
    held = json.loads(node(SCRIPTS / "parity.mjs", run, path, "hold", 0.5))
    free = json.loads(node(SCRIPTS / "parity.mjs", run, path))
    assert max(held[name] for name in held.keys() - {"simd", "ms"}) < CLOSE < free["lam"]


@node_only
@pytest.mark.slow
def test_the_javascript_passes_its_own_tests():
    told = node("--test", "--test-reporter=tap", *sorted(SCRIPTS.glob("*.test.mjs")))
    assert int(re.search(r"^# tests (\d+)", told, re.M)[1]) > 20 and "# fail 0" in told


# ---- The bundle --------------------------------------------------------------------------------


@pytest.mark.slow
@npm_only
def test_the_bundle_is_built_from_these_sources(tmp_path):
    node(PAGE / "build.mjs", tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [str(path) for path in made] == BUILT
    for path in made:
        assert (tmp_path / path).read_text(encoding="utf-8") == (PAGE / path).read_text(
            encoding="utf-8"
        ), f"{path} is old: run `npm run build` in {PAGE}"


BUILT = ["dist/explorer.js", "dist/forms.js", "dist/widget.js", "engine/kernel.mjs"]


@pytest.mark.slow
@npm_only
def test_the_sources_are_linted():
    lint = ["node_modules/eslint/bin/eslint.js", "-c", "eslint.config.mjs"]
    node(PAGE / lint[0], "-c", PAGE / lint[2], PAGE, SCRIPTS)
    sources = [*PAGE.glob("*.mjs"), *PAGE.glob("ui/*.mjs"), *PAGE.glob("engine/*.mjs")]
    sources += PAGE.glob("forms/*.mjs")
    sources = [path for path in sources if path.name != "kernel.mjs"]
    node("node_modules/prettier/bin/prettier.cjs", "--check", *sources, cwd=PAGE)


def test_every_source_is_short():
    files = [p for p in PAGE.rglob("*") if p.suffix in {".mjs", ".css", ".ts"}]
    files = [p for p in [*files, *SCRIPTS.glob("*.mjs")] if "node_modules" not in p.parts]
    assert len(files) > 20
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in files) <= 300


def test_the_page_asks_no_other_host_for_anything():
    bundle = "".join(
        (PAGE / name).read_text(encoding="utf-8") for name in [*BUILT, "index.html", "forms.html"]
    )
    addresses = set(re.findall(r"https?://[^\s\"'`)]+", bundle))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address


# ---- The folder --------------------------------------------------------------------------------


@pytest.mark.slow
def test_int8_changes_next_to_nothing():
    """Measured, not believed: the loss on text, the shares on BOS, the context RMS."""
    idx = torch.cat([data.encode(TEXT[at : at + 200]) for at in (0, 3000)])
    for name in build.MODELS.values():
        model = runs.load_pretrained(name)
        rounded = runs.load_pretrained(name)
        state = build.quantise(model.state_dict())
        for key, tensor in rounded.state_dict().items():
            scale = state.get(f"{key}.scale")
            tensor.copy_(state[key] if scale is None else state[key] * scale[:, None])
        with torch.no_grad():
            losses = [m(idx[:, :-1], idx[:, 1:])[1] for m in (model, rounded)]
        assert abs(losses[0] - losses[1]) < 0.002
        tables = [probe.probe(m, idx) for m in (model, rounded)]
        for column in ("first_share_eff", "rms"):
            pairs = zip(*([row[column] for row in table] for table in tables), strict=True)
            assert max(abs(a - b) for a, b in pairs) < 0.01


def test_rounding_is_to_the_nearest_of_255_steps():
    weights = {
        "matrix": torch.randn(5, 9) * torch.logspace(-3, 2, 5)[:, None],
        "gain": torch.ones(9),
    }
    weights["matrix"][2] = 0
    found = build.quantise(weights)
    assert found["matrix"].dtype == torch.int8 and found["gain"].dtype == torch.float32
    error = found["matrix"] * found["matrix.scale"][:, None] - weights["matrix"]
    assert (error.abs() <= 0.5001 * found["matrix.scale"][:, None]).all()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    build.build(out)
    return out


def test_the_folder_is_whole_and_small(site):
    for key in build.MODELS:
        file = site / "models" / key / "model.safetensors"
        assert "embed.weight.scale" in load_file(file)
        script = (site / "models" / f"{key}.js").read_text(encoding="utf-8")
        address, config, weights = json.loads(
            f"[{script.removeprefix('minidiff.deliver(').removesuffix(');' + chr(10))}]"
        )
        assert address == f"models/{key}" and json.loads(config)["model"]["vocab_size"] == 257
        assert base64.b64decode(weights) == file.read_bytes()
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.parent == site) < 3e6
    assert sum(sizes.values()) < 30e6  # the whole site may have 60 MB


@pytest.mark.slow
@node_only
def test_int8_files_are_read_as_pytorch_would(site, tmp_path):
    state = load_file(site / "models" / "diff_v2" / "model.safetensors")
    model = runs.load_pretrained("diff_v2")
    for key, tensor in model.state_dict().items():
        scale = state.get(f"{key}.scale")
        tensor.copy_(state[key] if scale is None else state[key] * scale[:, None])
    path = tmp_path / "reference.safetensors"
    save_file(reference(model, data.encode(TEXT[:60])), path)
    worst = json.loads(node(SCRIPTS / "parity.mjs", site / "models" / "diff_v2", path))
    assert max(error for name, error in worst.items() if name not in ("simd", "ms")) < CLOSE


def test_in_a_site_the_pages_name_the_course_and_alone_they_do_not(site, tmp_path):
    build.build(tmp_path / "in a site", home='../"index".html')
    for name, link in (
        ("index.html", 'home: "../\\"index\\".html", models'),
        ("forms.html", '<a href="../&quot;index&quot;.html">The course</a>'),
    ):
        assert link in (tmp_path / "in a site" / name).read_text(encoding="utf-8")
        alone = (site / name).read_text(encoding="utf-8")
        assert "The course</a>" not in alone and "<!-- home" not in alone


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"softmax_1\.5h holds no model\.safetensors: train it"):
        build.build(tmp_path / "site", checkpoints=tmp_path)
