"""The way back, from wherever something failed."""

from __future__ import annotations

from workflow.config import Config
from workflow.definition.chapter import LAP_SECONDS, Chapter, release_lock
from workflow.sdk import (
    Catch,
    Chain,
    Choice,
    ChoiceRule,
    Expr,
    Fail,
    Pass,
    Retry,
    SnsPublishStep,
    Wait,
)
from workflow.words import lambda_step, payload_of, retry, text

CLEAN_UP_LAPS = 120
CLEAN_UP_LAP_SECONDS = 60
"""2 hours as well; fewer laps, because each takes more events of the history, which AWS ends at 25,000."""


def go_back(config: Config) -> Chapter:
    clean_up = lambda_step(
        "CleanUp",
        "CleanUp",
        {
            "state": Expr("$"),
            "execution_id": Expr("$$.Execution.Id"),
            "project": config.project.name,
            "lock_table": "${LockTable}",
        },
        seconds=360,
        # It may be repeated, whatever happened to it: a call without an answer must not leave an endpoint behind.
        retry=Retry(error_equals=["States.ALL"], interval_seconds=LAP_SECONDS, max_attempts=3, backoff_rate=1.0),
        comment="One step back towards what was before, and what went wrong in one sentence",
        result_selector=payload_of("done", "error", "cause", "actions"),
        result_path="$.clean_up",
    )
    cleaned_up = Choice("CleanedUp?")
    count_lap = Pass(
        "CountCleanUpLap",
        parameters={"number": Expr("States.MathAdd($.clean_up_laps.number, 1)")},
        result_path="$.clean_up_laps",
    )
    wait = Wait("WaitForCleanUp", seconds=CLEAN_UP_LAP_SECONDS)
    clean_up_failed = Pass(
        "CleanUpFailed",
        parameters={
            "done": False,
            "error": "CleanUpFailed",
            "cause": text(
                "Something may be left behind that costs money: look for the resources of execution {}. "
                "What failed: {}",
                "$$.Execution.Id",
                "States.JsonToString($.failed)",
            ),
            "actions": [],
        },
        result_path="$.clean_up",
        comment="The way back is blocked: a person must look",
    )
    release = release_lock("ReleaseLockAfterFailure", config)
    notify = SnsPublishStep(
        "NotifyFailure",
        parameters={
            "TopicArn": "${NotificationTopicArn}",
            "Message": text(
                f"{config.project.name} (${{Region}}, account ${{AccountId}}): execution {{}} failed. {{}}: {{}}",
                "$$.Execution.Id",
                "$.clean_up.error",
                "$.clean_up.cause",
            ),
        },
        timeout_seconds=60,
        retry=retry("sns"),
        result_path=None,
    )
    failed = Fail("ExecutionFailed", error_path="$.clean_up.error", cause_path="$.clean_up.cause")

    clean_up.add_catch(Catch(clean_up_failed, error_equals=["States.ALL"], result_path="$.failed.CleanUp"))
    clean_up.next(cleaned_up)
    cleaned_up.add_choice(ChoiceRule.BooleanEquals("$.clean_up.done", True), release)
    in_time = ChoiceRule.NumericLessThan("$.clean_up_laps.number", CLEAN_UP_LAPS)
    cleaned_up.add_choice(in_time, count_lap)
    cleaned_up.default_choice(clean_up_failed)
    Chain([count_lap, wait, clean_up])
    Chain([clean_up_failed, release, notify, failed])
    # Neither may hide the cause.
    for state, following in ((release, notify), (notify, failed)):
        all_errors = {"error_equals": ["States.ALL"], "result_path": f"$.failed.{state.state_id}"}
        state.add_catch(Catch(following, **all_errors))
    return Chapter(clean_up)
