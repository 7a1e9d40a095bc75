"""The checks of notebook 07: how to compare two models."""

import math

from minidiff.course.checks import call, checks, close, expect, number, numbers, truth

THREE = (2.0, 4.0, 9.0)  # exercise 1: differences of three seeds
TRUE, SCATTER = -0.01, 0.007  # exercise 4: nats a byte
SPEED, STEPS = 0.8, 1000  # exercise 5: tokens/s over softmax's; steps of the slower model


@checks
def interval_of_three(ends, shown):
    """Exercise 1: (low, high) of the 95% interval of THREE; and whether a difference is shown."""
    low, high = numbers(ends, (2,), "the interval").tolist()
    mean, root = sum(THREE) / 3, math.sqrt(3)
    s = math.sqrt(sum((x - mean) ** 2 for x in THREE) / 2)
    expect(low < high, "The low end comes first.")
    expect(close(low + high, 2 * mean, 5e-3), "The mean of the three is not in its middle.")
    half = (high - low) / 2
    expect(not close(half, 1.96 * s / root, 5e-3), "1.96 is for many values; here are three.")
    expect(not close(half, 4.303 * s, 5e-3), "That is for one value. A mean scatters less.")
    population = s * math.sqrt(2 / 3)
    expect(not close(half, 4.303 * population / root, 5e-3), "In s, divide by n - 1 and not by n.")
    expect(close(half, 4.303 * s / root, 5e-3), f"Half its width is {half:.2f}: take it in steps.")
    expect(truth(shown, "the verdict") is False, "The ends are right. Where is 0?")
    return "All three are positive, and still nothing is shown."


@checks
def sign_test(p_six, fewest):
    """Exercise 2: two-sided p of six signs in six; the fewest equal signs with p below 0.05."""
    p, n = number(p_six, "the p-value"), number(fewest, "the number of seeds")
    expect(0 < p < 1, "A p-value is a probability.")
    expect(not close(p, 1 / 64), "Six to the other side would surprise as much.")
    expect(not close(p, 6 / 64), "The order plays no part: there is one way to have all six.")
    expect(close(p, 2 / 64), f"Six fair coins do not give {p:.3g}: multiply halves.")
    expect(n == int(n), "A number of seeds is a whole number.")
    expect(n > 5, "With so few, even if all agree, p is not below 0.05.")
    expect(n == 6, "Fewer are enough: try one less.")
    return "Fewer than six can never do it, whatever they say."


@checks
def best_difference(function):
    """Exercise 3: a function (one, other) -> one minus other, each at its own best rate."""
    one = {0.001: [0.70, 0.72], 0.003: [0.66, 0.78]}  # means 0.71, 0.72
    other = {0.001: [0.80, 0.82], 0.003: [0.74, 0.76]}  # means 0.81, 0.75
    found = number(call(function, one, other), "what your function returns")
    expect(not close(found, 0.04), "The sign: it should be the first model minus the second.")
    expect(
        not close(found, 0.66 - 0.74), "One lucky seed is not a best rate: take the mean of seeds."
    )
    expect(not close(found, -0.1), "That compares both at the best rate of the first model.")
    expect(not close(found, -0.03), "That compares both at the best rate of the second model.")
    expect(not close(found, -0.065), "That is the mean over all rates.")
    expect(close(found, -0.04), f"For the example it returns {found:.3g}.")
    swapped = number(call(function, other, one), "what your function returns")
    expect(close(swapped, 0.04), "Swapped models should give the other sign.")
    return "And each model chose from equally many rates: that must be fair, too."


@checks
def power(function):
    """Exercise 4: a function (n) -> share of experiments whose interval lies wholly below 0."""
    from scipy import stats

    for n in (3, 6):
        found = number(call(function, n), "what your function returns")
        shift = math.sqrt(n) * TRUE / SCATTER  # t is then noncentral
        below = {c: stats.nct.cdf(-stats.t.ppf(c, n - 1), n - 1, shift) for c in (0.975, 0.95)}
        normal = stats.nct.cdf(-1.96, n - 1, shift)
        expect(0 <= found <= 1, "A share lies between 0 and 1.")
        expect(
            abs(found - below[0.975]) < 0.02 or abs(found - normal) > 0.02,
            f"For n = {n}: 1.96 is for many seeds; t has n - 1 degrees of freedom.",
        )
        expect(
            abs(found - below[0.975]) < 0.02 or abs(found - below[0.95]) > 0.02,
            f"For n = {n}: 5% is shared by both ends of the interval.",
        )
        expect(abs(found - below[0.975]) < 0.02, f"For n = {n} it is not {found:.0%}.")
    return "Seeds that are not run decide nothing: choose their number before you look."


@checks
def equal_time(steps, fairer):
    """Exercise 5: steps of softmax in the time of STEPS of DIFF V2; is equal steps fair to it?"""
    steps = number(steps, "the number of steps")
    expect(not close(steps, STEPS * SPEED), "Softmax is the faster one: it makes more steps.")
    expect(
        not close(steps, STEPS * (2 - SPEED)),
        "If A makes a fifth less than B in an hour, B makes more than a fifth more than A.",
    )
    expect(close(steps, STEPS / SPEED, 2e-3), "In the same time: tokens/s times seconds.")
    expect(
        truth(fairer, "the second answer") is False,
        "The number is right. Does a bill for the GPU count steps or hours?",
    )
    return "Neither question is wrong. They are two questions."
