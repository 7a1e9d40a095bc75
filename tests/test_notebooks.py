"""The rules for notebooks that ``pytest --nbval``, which runs every cell, does not check."""

import ast
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook packages are not installed here")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
MAX_LINES = 25  # of a cell: what fits on a projected slide
VIEW = "application/vnd.jupyter.widget-view+json"

# ---- The rules: each is a function of a notebook that yields what is wrong ---------------------


def code_cells(notebook):
    return [
        (i, cell)
        for i, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def tree(cell):
    """The syntax tree, without lines such as %matplotlib or !ls, which are no Python."""
    return ast.parse(
        "\n".join("" if line[:1] in "%!" else line for line in cell.source.split("\n"))
    )


def calls(node):
    """(dotted name, call) of what runs when the cell does, in order; not inside its functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        yield from calls(child)
        if isinstance(child, ast.Call):
            yield ast.unparse(child.func), child


def all_calls(node):
    """(dotted name, call) of every call, those inside functions too, in order of the source."""
    found = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return [(ast.unparse(n.func), n) for n in sorted(found, key=lambda n: (n.lineno, n.col_offset))]


def texts(cell):
    """Every text of the outputs, without the base64 of pictures inside a page."""
    for output in cell.outputs:
        found = [output.get("text", ""), *output.get("data", {}).values()]
        for text in found:
            yield re.sub(
                r"data:image/png;base64,[\w+/=]+", "", text if isinstance(text, str) else ""
            )


def executed(notebook):
    for i, cell in code_cells(notebook):
        if cell.execution_count is None:  # nbval compares nothing of such a cell
            yield f"cell {i} was never run: make notebooks"


def errors(notebook):
    for i, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {i} stores an error: {output.ename}: {output.evalue}"
            if output.get("name") == "stderr":
                yield f"cell {i} stores a warning; mend its cause: {output.text.strip()[:80]}"


def outputs(notebook):
    for i, cell in code_cells(notebook):
        names = {name for name, _ in calls(tree(cell))}
        if names & {"print", "display", "plt.show"} and not cell.outputs:
            yield f"cell {i} prints or shows, but no output is stored"


def pictures(notebook):
    names = "difference", "rms", "cost", "hull", "pairs", "live"
    explorers = tuple(f"{name}_explorer" for name in names)
    for i, cell in code_cells(notebook):
        found = [name for name, _ in calls(tree(cell))]
        shows = found.count("plt.show") + sum(name.endswith(explorers) for name in found)
        stored = [o.get("data", {}) for o in cell.outputs]
        stored = [d for d in stored if "image/png" in d or "<img " in d.get("text/html", "")]
        if shows and not stored:
            yield f"cell {i} shows a figure, but no picture is stored"


def lengths(notebook):
    for i, cell in code_cells(notebook):
        lines = cell.source.strip().count("\n") + 1
        if lines > MAX_LINES:
            yield f"cell {i} has {lines} lines; a slide holds {MAX_LINES}"


TORCH_DRAW = re.compile(
    r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|rand_like|randn_like|poisson)"
    r"|.*\.(normal_|uniform_|bernoulli_|random_|exponential_|multinomial)"
    r"|.*init\.\w+_|(\w+\.)*(GPT|Block|SwiGLU|Linear|Embedding|\w+Attention)"
)
PYTHON_DRAW = re.compile(r"random\.(random|randint|choice|choices|shuffle|sample|gauss|uniform)")


def draws(notebook):
    """Every random draw comes after a seed of its own library, or has a seeded generator."""
    seeded = set()
    for i, cell in code_cells(notebook):
        for name, call in all_calls(tree(cell)):
            keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
            args = bool(call.args or call.keywords)
            if name in ("torch.manual_seed", "np.random.seed", "random.seed") and args:
                seeded.add(name.split(".")[0])
            if TORCH_DRAW.fullmatch(name) and "generator" not in keywords:
                bad = "torch" not in seeded
            elif name.startswith(("np.random.", "numpy.random.")):
                made = name.endswith((".default_rng", ".Generator", ".SeedSequence", ".seed"))
                bad = not args if made else "np" not in seeded
            elif name.endswith("random.Random"):
                bad = not args
            elif PYTHON_DRAW.fullmatch(name):
                bad = "random" not in seeded
            elif name.split(".")[-1] == "generate":
                bad = "seed" not in keywords and keywords.get("temperature") not in ("0", "0.0")
            else:
                bad = False
            if bad:
                yield f"cell {i} draws with {name} and no seed: another number in every run"


PATH = re.compile(r"(?<![\w./:])/(home|root|tmp|work|usr|opt|var|mnt|Users|private)/|\b[A-Z]:\\")


def paths(notebook):
    for i, cell in code_cells(notebook):
        for text in texts(cell):
            found = PATH.search(text)
            if found:
                yield f"cell {i} stores a path of one machine: {text[found.start() :][:60]!r}"


def widgets_state(notebook):
    if "widgets" in notebook.metadata:
        yield "the notebook stores widget state: make notebooks"
    for i, cell in code_cells(notebook):
        if any(VIEW in output.get("data", {}) for output in cell.outputs):
            yield f"cell {i} stores a widget, which nobody can see later: make notebooks"


def answers(notebook):
    """What the reader is to predict is folded away in JupyterLab and on the site."""
    for i, cell in code_cells(notebook):
        tags = cell.metadata.get("tags", [])
        folded = cell.metadata.get("jupyter", {}).get("outputs_hidden") and "hide-output" in tags
        if "predict" in tags and not folded:
            yield f"cell {i} shows what is to be predicted: make notebooks"


RULES = [executed, errors, outputs, pictures, lengths, draws, paths, widgets_state, answers]


def exercises(notebook):
    """Number of each exercise -> whether there is code between its heading and the next one."""
    found, number = {}, None
    for cell in notebook.cells:
        headings = re.findall(r"^#+\s*(?:Solution|Exercise)\s+(\d+)", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            found |= dict.fromkeys(map(int, headings), False)
            number = int(headings[-1])
        elif cell.cell_type == "markdown" and re.match(r"#{1,2}\s", cell.source):
            number = None  # another section begins
        elif cell.cell_type == "code" and number is not None and cell.source.strip():
            found[number] = True
    return found


def unsolved(notebook, solution):
    """Exercises of a notebook without code in the solution notebook (None: there is no such)."""
    solved = exercises(solution) if solution else {}
    for number in exercises(notebook):
        if not solved.get(number):
            yield f"exercise {number} has no solution in notebooks/solutions/"


# ---- Notebooks that teach to a clock -------------------------------------------------------------

CONVERTED = {  # by the rules below -> words that it may have
    "00_start_here": 1500,
    "01_differential_attention": 3000,
    "02_context_rms": 3000,
    "02b_trained_heads": 1500,
    "03_lambda": 3000,
    "04_attention_sinks": 3000,
    "05_train_diff_v2": 3000,
    "06_fast_paths": 3000,
    "07_how_to_compare": 3000,
    "08_ablations_v1_cures": 3000,
    "09_sparse_attention": 1500,
    "10_yoco": 1500,
    "11_moe": 1500,
    "12_long_context": 1500,
    "13_capstone": 3000,
}
WORDS_PER_MINUTE, LINES_PER_MINUTE = 200, 15  # read, of text and of code


def words(notebook):
    """Words of the text; a formula is one word, the address of a link none."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    text = re.sub(r"<img[^>]*>|</?[a-z]+>", " ", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"\$\$.+?\$\$|\$.+?\$", " formula ", text, flags=re.DOTALL)
    return len(re.findall(r"[^\W_][\w'’.-]*", text))


def reading_time(notebook):
    """Minutes to read the whole notebook, exercises and quiz too; doing the exercises is extra."""
    cells = [c for _, c in code_cells(notebook) if "remove-cell" not in c.metadata.get("tags", [])]
    lines = sum(c.source.count("\n") + 1 for c in cells)  # not those for Colab: first_cell.py
    return words(notebook) / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE


def clock(notebook, most):
    """The notebook keeps its budget of words, and prints how long it takes to read."""
    if words(notebook) > most:
        yield f"{words(notebook)} words; it may have {most}"
    printed = re.search(r"\*\*Time:\*\* (\d+) minutes to read", notebook.cells[0].source)
    minutes = reading_time(notebook)
    if not printed or abs(int(printed[1]) / minutes - 1) > 0.15:
        yield f"**Time:** should say {minutes:.0f} minutes to read"


def answering(notebook):
    """Each goal names an exercise, each exercise ends in a check, and there is a quiz."""
    sections = re.split(r"^### Exercise (\d+)", text_and_code(notebook), flags=re.MULTILINE)
    parts = zip(sections[1::2], sections[2::2], strict=True)
    checked = {int(n): "check." in part for n, part in parts}
    for number, has_check in checked.items():
        if not has_check:
            yield f"exercise {number} does not end in a check"
    goals = re.findall(r"^\d+\. .+?(?=^\d+\. |\Z)", notebook.cells[0].source, re.M | re.S)
    if not goals:
        yield "there are no goals in the first cell"
    for goal in goals:
        named = [
            int(n)
            for n in re.findall(r"\d+", " ".join(re.findall(r"exercises? ([\d, and]+)", goal)))
        ]
        if not named or not set(named) <= set(checked):
            yield f"no exercise of this notebook belongs to the goal: {goal.strip()[:60]}"
    if text_and_code(notebook).count("<details>") < 5:
        yield "fewer than five questions with an answer to open (<details>)"


def not_right(solution):
    """Checks that do not accept what the solution hands in."""
    for i, cell in code_cells(solution):
        if re.search(r"^Not (yet|answered)", "".join(texts(cell)), flags=re.MULTILINE):
            yield f"the solution in cell {i} is not right for its own check"


def text_and_code(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


def dead_links(notebook, folder):
    """Links and pictures that lead to no file."""
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", text):
        target = "".join(link)
        if "://" not in target and not (folder / target).exists():
            yield f"the link to {target} leads nowhere"


# ---- The course --------------------------------------------------------------------------------


def test_there_is_a_course():
    if not NOTEBOOKS:
        pytest.skip("there is no notebook in notebooks/ yet")
    numbers = {path.name.split("_")[0] for path in NOTEBOOKS}
    assert len(numbers) == len(NOTEBOOKS), "two with one number"
    orphans = {path.name for path in SOLUTIONS} - {path.name for path in NOTEBOOKS}
    assert not orphans, f"solutions of no notebook: {orphans}"


@pytest.mark.parametrize(
    "path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_notebook_follows_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    problems = [problem for rule in RULES for problem in rule(notebook)]
    if path in NOTEBOOKS:
        partner = path.parent / "solutions" / path.name
        solution = nbformat.read(partner, as_version=4) if partner.exists() else None
        problems += unsolved(notebook, solution)
    if path in NOTEBOOKS and path.stem in CONVERTED:
        problems += [*clock(notebook, CONVERTED[path.stem]), *answering(notebook)]
        problems += dead_links(notebook, path.parent)
        if "check." not in text_and_code(solution):
            problems.append("the solutions do not run the checks")
        problems += not_right(solution)
    assert not problems, "\n".join(problems)


# ---- Each rule finds what it is there for ------------------------------------------------------

PNG = {"image/png": "iVBORw0KGgo="}


def cell(source, *outputs, count=1):
    made = nbformat.v4.new_code_cell(source, execution_count=count)
    made.outputs = [nbformat.v4.new_output(**output) for output in outputs]
    return made


def shown(data):
    return {"output_type": "display_data", "data": data}


def printed(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def problems_of(rule, *cells):
    return list(rule(nbformat.v4.new_notebook(cells=list(cells))))


FAULTS = {
    executed: [cell("x = 1", count=None)],
    errors: [
        cell("1/0", {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "no"}),
        cell("f()", printed("UserWarning: old", name="stderr")),
    ],
    outputs: [cell("print(1)"), cell("for i in range(3):\n    print(i)"), cell("plt.show()")],
    pictures: [
        cell("plt.show()", shown({"text/plain": "<Figure>"})),
        cell("forms.rms_explorer()", shown({"text/plain": "rms explorer"})),
    ],
    lengths: [cell("\n".join(["x = 1"] * (MAX_LINES + 1)))],
    draws: [
        cell("torch.randn(3)"),
        cell("x.normal_()"),
        cell("def f():\n    return torch.rand(2)"),
        cell("model = GPT(GPTConfig())"),
        cell("np.random.default_rng()"),
        cell("np.random.rand(3)"),
        cell("random.choice([1, 2])"),
        cell("model.generate(idx, 20)"),
        cell("%time x = 1\ntorch.randperm(4)\nrandom.seed(0)"),
    ],
    paths: [
        cell("x", shown({"text/plain": "PosixPath('/home/me/x')"})),
        cell("print(x)", printed("saved /tmp/run/model.safetensors")),
        cell("print(x)", printed("saved C:\\Users\\me")),
    ],
    widgets_state: [cell("w", shown({VIEW: {"model_id": "a"}}))],
    answers: [nbformat.v4.new_code_cell("x", metadata={"tags": ["predict"]})],
}
GOOD = [
    cell("torch.manual_seed(0)\nx = torch.randn(3)\nmodel = GPT(GPTConfig())"),
    cell("rng = np.random.default_rng(0)\nrng.normal(size=3)"),
    cell("g = torch.Generator().manual_seed(1)\ntorch.rand(2, generator=g)"),
    cell("model.generate(idx, 20, seed=0)\nmodel.generate(idx, 20, temperature=0)"),
    cell("def show():\n    print(1)"),
    cell("print('a/b', 3 / 4)", printed("a/b 0.75 https://arxiv.org/abs/2410.05258")),
    cell("plots.f(x)\nplt.show()", shown(PNG)),
    cell("forms.rms_explorer()", shown({"text/html": '<img src="data:image/png;base64,/tmp/">'})),
    cell("# a comment\n\n%matplotlib inline"),
]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [(rule, fault) for rule, faults in FAULTS.items() for fault in faults],
    ids=lambda value: value.__name__ if callable(value) else value.source[:20],
)
def test_rule_finds_the_fault(rule, fault):
    assert problems_of(rule, fault)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_good_notebook(rule):
    assert problems_of(rule, *GOOD) == []


def test_widget_state_in_the_metadata_is_found():
    notebook = nbformat.v4.new_notebook(metadata={"widgets": {}})
    assert list(widgets_state(notebook))


def test_an_exercise_without_a_solution_is_found():
    markdown = nbformat.v4.new_markdown_cell
    notebook = nbformat.v4.new_notebook(
        cells=[markdown("### Exercise 1 (easy)\nTry it."), markdown("### Exercise 2\nAnd this.")]
    )
    one = [markdown("### Exercise 1"), cell("answer = 1"), markdown("### Exercise 2\nIn words.")]
    assert len(list(unsolved(notebook, None))) == 2
    solution = nbformat.v4.new_notebook(cells=one)
    assert [p[:10] for p in unsolved(notebook, solution)] == ["exercise 2"]
    solution.cells.append(cell("answer = 2"))
    assert not list(unsolved(notebook, solution))


def first_cell(minutes, goal="1. count (exercise 1)."):
    return nbformat.v4.new_markdown_cell(
        f"# Title\n\n**Time:** {minutes} minutes to read.\n\n{goal}"
    )


def test_words_and_minutes_are_counted():
    text = "Two words, [a link](far/away.ipynb) and $a + b$.\n<details>x_y</details>"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), cell("a\nb")])
    assert words(notebook) == 7  # Two words a link and formula x_y
    assert reading_time(notebook) == pytest.approx(7 / 200 + 2 / 15)
    long = nbformat.v4.new_markdown_cell(" ".join(["word"] * 1000))
    notebook = nbformat.v4.new_notebook(cells=[first_cell(5), long])
    assert not list(clock(notebook, 1100)) and "words" in "".join(clock(notebook, 900))
    notebook.cells[0] = first_cell(8)
    assert "should say 5 minutes" in "".join(clock(notebook, 1100))


def test_goals_exercises_checks_and_quiz_belong_together():
    exercise = nbformat.v4.new_markdown_cell("### Exercise 1\nCount.")
    quiz = nbformat.v4.new_markdown_cell(
        5 * "<details><summary>Answer</summary>\nYes.\n</details>\n"
    )
    good = [first_cell(1), quiz, exercise, cell("check.count(my_count)")]
    notebook = nbformat.v4.new_notebook(cells=good)
    assert not list(answering(notebook))
    for i, bad, says in (
        (0, first_cell(1, "1. count."), "no exercise"),
        (0, first_cell(1, "1. count (exercise 2)."), "no exercise"),
        (0, first_cell(1, "None."), "no goals"),
        (1, cell("x = 1"), "fewer than five"),
        (3, cell("my_count = 3"), "does not end in a check"),
    ):
        cells = [*good[:i], bad, *good[i + 1 :]]
        assert says in "".join(answering(nbformat.v4.new_notebook(cells=cells)))


def test_a_solution_that_its_check_refuses_is_found():
    notebook = nbformat.v4.new_notebook(cells=[cell("check.x(1)", printed("Right.\n"))])
    assert not list(not_right(notebook))
    notebook.cells.append(cell("check.x(2)", printed("n = 2\nNot yet. Half of it is.\n")))
    assert len(list(not_right(notebook))) == 1


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "there.md").touch()
    text = '[a](there.md#part) [b](https://x.org) <img src="gone.svg"> [c](gone.ipynb)'
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    assert len(list(dead_links(notebook, tmp_path))) == 2
