"""stack.yaml: what starts by itself, what is watched, and that nothing that goes wrong on the way is lost."""

from __future__ import annotations

import json
import re
from typing import Any

from contracts.stack_template import RESOURCES, TEMPLATE, of_type, resource_policies, role_statements

QUEUE = {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}
ALIAS = {"Ref": "StateMachineAlias"}
TOPIC = {"Ref": "NotificationTopic"}


def properties(name: str) -> dict[str, Any]:
    found: dict[str, Any] = RESOURCES[name]["Properties"]
    return found


def test_nothing_starts_by_itself_until_somebody_says_so() -> None:
    assert TEMPLATE["Parameters"]["ScheduleState"]["Default"] == "DISABLED"
    assert properties("Schedule")["State"] == {"Ref": "ScheduleState"}
    assert TEMPLATE["Parameters"]["StartOnNewData"]["Default"] == "false"
    assert properties("NewDataRule")["State"] == {"Fn::If": ["StartsOnNewData", "ENABLED", "DISABLED"]}


def test_sweeping_up_is_always_on() -> None:
    assert properties("EndedBadlyRule")["State"] == "ENABLED"


def test_schedule_and_new_data_start_the_alias() -> None:
    assert properties("Schedule")["Target"]["Arn"] == ALIAS
    assert json.loads(properties("Schedule")["Target"]["Input"]) == {}
    [target] = properties("NewDataRule")["Targets"]
    assert target["Arn"] == ALIAS


def test_the_schedule_has_its_zone_and_its_window() -> None:
    schedule = properties("Schedule")
    assert schedule["ScheduleExpressionTimezone"] == {"Ref": "ScheduleTimeZone"}
    name, flexible, exact = schedule["FlexibleTimeWindow"]["Fn::If"]
    assert name == "HasFlexibleWindow"
    assert flexible == {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": {"Ref": "ScheduleFlexibleWindowMinutes"}}
    assert exact == {"Mode": "OFF"}  # a bare OFF would be YAML for false


def test_one_manifest_starts_one_execution_on_its_folder() -> None:
    rule = properties("NewDataRule")
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [{"Ref": "DataBucket"}]}, "object": {"key": [{"suffix": "/_SUCCESS"}]}},
    }
    transformer = rule["Targets"][0]["InputTransformer"]
    text = transformer["InputTemplate"]
    for name, path in transformer["InputPathsMap"].items():
        text = text.replace(f"<{name}>", {"$.detail.bucket.name": "b", "$.detail.object.key": "dogs/_SUCCESS"}[path])
    assert json.loads(text) == {"data": {"s3_uri": "s3://b/dogs/_SUCCESS"}}
    notification = properties("DataBucket")["NotificationConfiguration"]
    assert notification == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}


def test_every_bad_end_of_this_state_machine_is_swept() -> None:
    pattern = properties("EndedBadlyRule")["EventPattern"]
    assert pattern["detail"] == {
        "stateMachineArn": [{"Ref": "StateMachine"}],
        "status": ["FAILED", "TIMED_OUT", "ABORTED"],
    }
    [target] = properties("EndedBadlyRule")["Targets"]
    assert target["Arn"] == {"Ref": "SweepAlias"}
    permission = properties("SweepPermission")
    assert permission["FunctionName"] == {"Ref": "SweepAlias"}
    assert permission["SourceArn"] == {"Fn::GetAtt": ["EndedBadlyRule", "Arn"]}
    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_every_quarter_of_an_hour_somebody_looks_around_by_the_same_lambda() -> None:
    rule = properties("LookAroundRule")
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(15 minutes)", "ENABLED")
    [target] = rule["Targets"]
    assert target["Arn"] == {"Ref": "SweepAlias"}
    assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 900, "the next one does the same"
    permission = properties("LookAroundPermission")
    assert permission["FunctionName"] == {"Ref": "SweepAlias"}
    assert permission["SourceArn"] == {"Fn::GetAtt": ["LookAroundRule", "Arn"]}
    assert permission["SourceAccount"] == {"Ref": "AWS::AccountId"}


def test_what_cannot_be_delivered_is_tried_again_and_then_kept() -> None:
    targets = [properties("Schedule")["Target"]]
    targets += [target for rule in of_type("AWS::Events::Rule").values() for target in rule["Targets"]]
    for target in targets:
        assert target["DeadLetterConfig"] == {"Arn": QUEUE}
        assert target["RetryPolicy"]["MaximumRetryAttempts"] >= 2
        assert 60 <= target["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 86_400
    retries = properties("SweepRetries")
    assert retries["DestinationConfig"] == {"OnFailure": {"Destination": QUEUE}}
    assert retries["Qualifier"] == properties("SweepAlias")["Name"]


def test_whoever_fills_the_queue_may() -> None:
    sending = {statement.owner for statement in role_statements() if "sqs:SendMessage" in statement.actions}
    assert sending == {"ScheduleRole", "SweepRole"}
    [rules] = [found for found in resource_policies()["DeadLetterQueuePolicy"] if found.content["Effect"] == "Allow"]
    named = {arn["Fn::GetAtt"][0] for arn in rules.content["Condition"]["ArnEquals"]["aws:SourceArn"]}
    assert named == set(of_type("AWS::Events::Rule"))


def test_every_alarm_tells_the_topic_and_silence_is_no_alarm() -> None:
    alarms = of_type("AWS::CloudWatch::Alarm")
    assert set(alarms) == {
        "EndpointErrorsAlarm",
        "EndpointLatencyAlarm",
        "ExecutionsFailedAlarm",
        "LambdaThrottlesAlarm",
        "DeadLetterAlarm",
    }
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == [TOPIC], name
        assert alarm["TreatMissingData"] == "notBreaching", name
        # The topic and the key take messages of alarms that are named so.
        assert alarm["AlarmName"]["Fn::Sub"].startswith("${ProjectName}-"), name


def test_throttles_of_every_lambda_that_serves_or_works_are_watched() -> None:
    metrics = properties("LambdaThrottlesAlarm")["Metrics"]
    watched = {
        metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Ref"] for metric in metrics if "MetricStat" in metric
    }
    # The custom resource runs while somebody deploys and looks.
    assert watched == set(of_type("AWS::Lambda::Function")) - {"ChampionMarkerFunction"}
    assert len(metrics) <= 10  # source: CloudWatch user guide, alarms on metric math expressions


def test_the_dashboard_is_json_and_shows_every_alarm() -> None:
    text = properties("Dashboard")["DashboardBody"]["Fn::Sub"]
    body = json.loads(re.sub(r"\$\{([\w.:]+)\}", r"\1", text))
    shown = {
        alarm.removesuffix(".Arn") for widget in body["widgets"] for alarm in widget["properties"].get("alarms", [])
    }
    assert shown == set(of_type("AWS::CloudWatch::Alarm"))
    assert all(widget["x"] + widget["width"] <= 24 for widget in body["widgets"])


def test_budget_alerts_reach_the_topic() -> None:
    [budget] = of_type("AWS::Budgets::Budget").values()
    for notification in budget["NotificationsWithSubscribers"]:
        assert notification["Subscribers"] == [{"SubscriptionType": "SNS", "Address": TOPIC}]
    allowed = [found.content["Principal"] for found in resource_policies()["NotificationTopicPolicy"]]
    assert {"Service": "budgets.amazonaws.com"} in allowed
    assert {"Service": "cloudwatch.amazonaws.com"} in allowed


def test_executions_are_logged_whole_and_traced() -> None:
    state_machine = properties("StateMachine")
    assert state_machine["LoggingConfiguration"]["Level"] == "ALL"
    assert state_machine["LoggingConfiguration"]["IncludeExecutionData"] is True
    assert state_machine["TracingConfiguration"] == {"Enabled": True}
    # Longer names would outgrow the account's resource policy for log delivery.
    assert properties("StateMachineLog")["LogGroupName"]["Fn::Sub"].startswith("/aws/vendedlogs/")


def test_a_new_revision_of_the_state_machine_becomes_the_alias() -> None:
    version = properties("StateMachineVersion")
    assert version["StateMachineRevisionId"] == {"Fn::GetAtt": ["StateMachine", "StateMachineRevisionId"]}
    [route] = properties("StateMachineAlias")["RoutingConfiguration"]
    assert route == {"StateMachineVersionArn": {"Ref": "StateMachineVersion"}, "Weight": 100}
