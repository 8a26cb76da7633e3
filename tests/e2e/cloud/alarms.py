"""Evaluates the alarms of a template, read from stdin, over recorded data, as CloudWatch does; prints their states.

    {"template": {…}, "cases": [["Stuck", {"visible": [1, 1, 1]}], …]}

A series has one value for each period, or null where nothing was recorded; a series that is not given has none at all.
The one of an alarm that does not compute has the name of its metric.
"""

import json
import re
import sys


class Value:
    """A number, or nothing, which all that is computed with it is as well. What is divided by zero is nothing."""

    def __init__(self, number):
        self.number = number

    def with_(self, other, operation):
        other = other.number if isinstance(other, Value) else other
        if self.number is None or other is None:
            return Value(None)
        try:
            return Value(operation(self.number, other))
        except ZeroDivisionError:
            return Value(None)

    def __add__(self, other):
        return self.with_(other, lambda a, b: a + b)

    def __mul__(self, other):
        return self.with_(other, lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other):
        return self.with_(other, lambda a, b: a / b)

    def __gt__(self, other):
        return self.with_(other, lambda a, b: a > b)

    def __ge__(self, other):
        return self.with_(other, lambda a, b: a >= b)


def fill(value, instead):
    return Value(instead) if value.number is None else value


def choose(condition, yes, no):
    chosen = condition if condition.number is None else yes if condition.number else no
    return chosen if isinstance(chosen, Value) else Value(chosen)


def state(alarm, parameters, recorded):
    if metric := alarm.get("MetricName"):
        assert recorded.keys() <= {metric}, (recorded.keys(), metric)
        alarm = alarm | {"Metrics": [{"Id": metric, "MetricStat": {}}, {"Expression": metric}]}
    expressions = [metric for metric in alarm["Metrics"] if "Expression" in metric]
    assert len(expressions) == 1, expressions
    series = {metric["Id"] for metric in alarm["Metrics"] if "MetricStat" in metric}
    assert recorded.keys() <= series, (recorded.keys(), series)
    periods = alarm["EvaluationPeriods"]
    verdicts = []
    for period in range(periods):
        names = {one: Value(recorded.get(one, [None] * periods)[period]) for one in series}
        expression = re.sub(r"\bIF\(", "choose(", expressions[0]["Expression"].replace("FILL(", "fill("))
        value = eval(expression, {"fill": fill, "choose": choose} | names).number
        if value is None:
            verdicts.append(alarm["TreatMissingData"] == "breaching")
        else:
            greater = alarm["ComparisonOperator"] == "GreaterThanThreshold"
            threshold = alarm["Threshold"]
            threshold = parameters[threshold["Ref"]]["Default"] if isinstance(threshold, dict) else threshold
            verdicts.append(value > threshold if greater else value < threshold)
    return "ALARM" if all(verdicts) else "OK"


given = json.load(sys.stdin)
resources, parameters = given["template"]["Resources"], given["template"]["Parameters"]
print(json.dumps([state(resources[name]["Properties"], parameters, recorded) for name, recorded in given["cases"]]))
