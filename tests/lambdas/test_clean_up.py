from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from lambdas.clean_up import handler as clean_up
from lambdas.clean_up.handler import explain, handler, read_cause

ME = "arn:aws:states:us-east-1:123456789012:execution:kelpie:me"
OTHER = "arn:aws:states:us-east-1:123456789012:execution:kelpie:other"
RUN = "kelpie-0123"
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/kelpie/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}


NEW, OLD = "ml.c5.xlarge", "ml.c5.large"
"""Instance types: of the endpoint config of this execution, and of the one before."""


class Scaling:
    """moto's Application Auto Scaling where a target takes its policies with it, as AWS says; with failures on request.

    `calls` lists the operations that change something; `fail` maps an operation to the error code that it answers.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls: list[str] = []
        self.fail: dict[str, str] = {}

    def __getattr__(self, operation: str) -> Any:
        def call(**parameters: Any) -> Any:
            if not operation.startswith("describe"):
                self.calls.append(operation)
            if operation in self.fail:
                error = {"Code": self.fail[operation], "Message": f"{operation} is not possible now"}
                raise ClientError({"Error": error}, operation)  # type: ignore[typeddict-item]
            if operation == "deregister_scalable_target":
                for policy in self._client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]:
                    self._client.delete_scaling_policy(**TARGET, PolicyName=policy["PolicyName"])
            return getattr(self._client, operation)(**parameters)

        return call

    def scale(self, lowest: int, highest: int, **targets_by_policy: float) -> None:
        """Register the target, and policies with these target values."""
        self._client.register_scalable_target(**TARGET, MinCapacity=lowest, MaxCapacity=highest)
        for name, value in targets_by_policy.items():
            metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
            self._client.put_scaling_policy(
                **TARGET,
                PolicyName=name,
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={
                    "TargetValue": value,
                    "PredefinedMetricSpecification": metric,
                    "ScaleInCooldown": 300,
                },
            )

    def answers(self) -> dict[str, Any]:
        """What the two Describe operations answer, as the state data keeps it."""
        targets = self._client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
        policies = self._client.describe_scaling_policies(**TARGET)["ScalingPolicies"]
        answers = {"target": {"ScalableTargets": targets}, "policies": {"ScalingPolicies": policies}}
        return dict(json.loads(json.dumps(answers, default=str)))

    def now(self) -> tuple[list[tuple[int, int]], dict[str, float]]:
        """Minimum and maximum of the targets, and the policies' target values."""
        answers, key = self.answers(), "TargetTrackingScalingPolicyConfiguration"
        targets = [(each["MinCapacity"], each["MaxCapacity"]) for each in answers["target"]["ScalableTargets"]]
        return targets, {
            each["PolicyName"]: each[key]["TargetValue"] for each in answers["policies"]["ScalingPolicies"]
        }


@pytest.fixture
def scaling(aws: Any) -> Scaling:
    return Scaling(aws("application-autoscaling"))


def a_state(**parts: Any) -> dict[str, Any]:
    names = {"run": "0123", "training_job": RUN, "model": RUN, "endpoint_config": RUN, "endpoint": "kelpie"}
    failed = {"SmokeTest": {"Error": "SmokeTestFailed", "Cause": '{"errorMessage": "Accuracy 0.1 is too low."}'}}
    return {"names": names, "attempt": {"number": 0}, "failed": failed, "warnings": {}, **parts}


@pytest.fixture
def call(
    sagemaker: Any, scaling: Scaling, aws: Any, lock_table: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Call CleanUp once; the execution `ME` holds the lock unless the test says otherwise."""
    lock_table(pk="kelpie", owner=ME)
    fakes = {"sagemaker": sagemaker, "application-autoscaling": scaling}
    monkeypatch.setattr(clean_up, "client", lambda service: fakes.get(service) or aws(service))

    def once(state: dict[str, Any], execution_id: str = ME) -> dict[str, Any]:
        event = {"state": state, "execution_id": execution_id, "project": "kelpie", "lock_table": "kelpie-lock"}
        result = handler(event, context)
        assert isinstance(result, dict)
        assert json.loads(json.dumps(result)) == result
        return result

    return once


@pytest.fixture
def run_to_end(call: Any, sagemaker: Any) -> Any:
    """Call CleanUp as the state machine does; between the calls, what was asked for comes true."""

    def run(state: dict[str, Any]) -> dict[str, Any]:
        for _ in range(10):
            state["clean_up"] = call(state)
            if state["clean_up"]["done"]:
                return dict(state["clean_up"])
            for endpoint in sagemaker.backend.endpoints.values():
                endpoint.endpoint_status = "InService"
            for job in sagemaker.backend.training_jobs.values():
                job.training_job_status = "Stopped"
        raise AssertionError("it never ends")

    return run


def test_nothing_was_created_and_nothing_is_done(call: Any, sagemaker: Any) -> None:
    result = call({"input": {}, "failed": {"ResolveInput": {"Error": "InvalidInput", "Cause": "{}"}}})
    assert (result["done"], result["error"], result["actions"]) == (True, "InvalidInput", [])
    assert sagemaker.calls == []


def test_an_execution_without_the_lock_touches_nothing(call: Any, lock_table: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(RUN)
    lock_table(pk="kelpie", owner=OTHER)
    result = call(a_state(failed={"AcquireLock": {"Error": "LockHeld", "Cause": f"Execution {OTHER} is running."}}))
    assert result["done"]
    assert sagemaker.calls == []
    assert result["cause"].startswith(f"AcquireLock failed: Execution {OTHER} is running; to fix it, wait until")


def test_without_any_lock_nothing_is_touched(call: Any, aws: Any, sagemaker: Any) -> None:
    aws("dynamodb").delete_item(TableName="kelpie-lock", Key={"pk": {"S": "kelpie"}})
    sagemaker.make_deployable(RUN)
    assert call(a_state())["done"]
    assert call(a_state(), execution_id="")["done"]
    assert sagemaker.calls == []


def test_when_the_lock_cannot_be_read_nothing_is_touched_and_the_cause_says_so(
    call: Any, aws: Any, sagemaker: Any
) -> None:
    aws("dynamodb").delete_table(TableName="kelpie-lock")
    result = call(a_state())
    assert result["done"]
    assert sagemaker.calls == []
    assert "Accuracy 0.1 is too low" in result["cause"]
    assert "left undone: find out who holds the lock: failed, " in result["cause"]


def test_a_running_training_job_is_stopped_and_waited_for(call: Any, sagemaker: Any) -> None:
    sagemaker.make_training_job(f"{RUN}-0", "Failed")
    sagemaker.make_training_job(f"{RUN}-1", "InProgress")
    state = a_state(attempt={"number": 1})
    state["clean_up"] = call(state)
    assert not state["clean_up"]["done"]
    assert sagemaker.calls == ["stop_training_job"]
    state["clean_up"] = call(state)
    assert not state["clean_up"]["done"]
    sagemaker.backend.training_jobs[f"{RUN}-1"].training_job_status = "Stopped"
    result = call(state)
    assert result["done"]
    assert result["actions"] == [f"stop training job {RUN}-1: done"]
    assert sagemaker.calls.count("stop_training_job") == 1


def test_a_model_whose_endpoint_was_never_touched_is_deleted_and_rejected(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_endpoint("kelpie-old")
    sagemaker.make_deployable(RUN)
    arn = sagemaker.make_package("PendingManualApproval")
    result = call(a_state(package={"ModelPackageArn": arn}))
    assert result["done"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model", "update_model_package"]
    assert list(sagemaker.backend.endpoint_configs) == ["kelpie-old"]
    package = sagemaker.client.describe_model_package(ModelPackageName=arn)
    assert package["ModelApprovalStatus"] == "Rejected"
    assert "Accuracy 0.1 is too low" in package["ApprovalDescription"]


def test_a_version_that_a_rollback_could_not_bring_back_stays_approved(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(RUN)
    arn = sagemaker.make_package("Approved")
    state = a_state(package={"ModelPackageArn": arn}, settings={"rollback": {"model_package_arn": arn}})
    assert call(state)["done"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model"]
    assert sagemaker.client.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"] == "Approved"


def test_a_new_version_is_rejected_although_the_settings_have_a_section_for_rollbacks(
    call: Any, sagemaker: Any
) -> None:
    arn = sagemaker.make_package("PendingManualApproval")
    state = a_state(package={"ModelPackageArn": arn}, settings={"rollback": {"model_package_arn": ""}})
    assert call(state)["done"]
    assert sagemaker.client.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"] == "Rejected"


def test_an_endpoint_that_this_execution_created_goes_in_order(run_to_end: Any, sagemaker: Any, aws: Any) -> None:
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint(RUN)
    scaling = aws("application-autoscaling")
    scaling.register_scalable_target(**TARGET, MinCapacity=1, MaxCapacity=3)
    result = run_to_end(a_state(endpoint={"exists": False, "EndpointConfigName": ""}))
    assert [action.split(":")[0] for action in result["actions"]] == [
        "deregister scalable target endpoint/kelpie/variant/AllTraffic",
        "delete endpoint kelpie",
        f"delete endpoint config {RUN}",
        f"delete model {RUN}",
    ]
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert not sagemaker.backend.endpoints
    assert not sagemaker.backend.endpoint_configs


def test_an_endpoint_is_not_deleted_while_it_is_still_being_created(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(RUN)
    endpoint = sagemaker.make_endpoint(RUN, "Creating")
    state = a_state(endpoint={"exists": False})
    assert not call(state)["done"]
    assert sagemaker.calls == []
    endpoint.endpoint_status = "Failed"
    assert not call(state)["done"]
    assert sagemaker.calls == ["delete_endpoint"]


def test_an_updated_endpoint_goes_back_to_its_previous_config(run_to_end: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    endpoint = sagemaker.make_endpoint(RUN)
    result = run_to_end(a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"}))
    assert sagemaker.calls == ["update_endpoint", "delete_endpoint_config", "delete_model"]
    assert endpoint.endpoint_config_name == "kelpie-old"
    assert result["actions"][0] == "put back config kelpie-old on endpoint kelpie: done"
    assert list(sagemaker.backend.endpoint_configs) == ["kelpie-old"]


def test_an_update_that_sagemaker_took_back_is_not_taken_back_again(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_endpoint("kelpie-old", failure_reason="alarm kelpie-errors")
    sagemaker.make_deployable(RUN)
    assert call(a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"}))["done"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model"]


def test_an_endpoint_that_does_not_go_back_keeps_the_config_it_uses_and_is_reported(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    endpoint = sagemaker.make_endpoint(RUN)
    state = a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"})
    state["clean_up"] = call(state)
    assert not state["clean_up"]["done"]
    endpoint.endpoint_config_name, endpoint.endpoint_status = RUN, "InService"
    endpoint.failure_reason = "old config is broken too"
    result = call(state)
    assert result["done"]
    assert sagemaker.calls == ["update_endpoint"]
    assert "left undone: put back config kelpie-old on endpoint kelpie: failed, old config is" in result["cause"]


def test_a_previous_config_that_is_gone_is_a_failure_and_not_a_success(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint(RUN)
    result = call(a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"}))
    assert result["done"]
    assert "Could not find endpoint configuration" in result["cause"]
    assert list(sagemaker.backend.endpoint_configs) == [RUN]


def test_a_failed_rollback_of_sagemaker_is_repeated(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint("kelpie-old", "UpdateRollbackFailed")
    assert not call(a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"}))["done"]
    assert sagemaker.calls == ["update_endpoint"]


def test_an_endpoint_with_a_config_of_someone_else_is_left_alone(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("somebody-elses")
    sagemaker.make_endpoint("somebody-elses")
    sagemaker.make_deployable(RUN)
    assert call(a_state(endpoint={"exists": False, "EndpointConfigName": ""}))["done"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model"]


def test_a_promoted_model_is_kept(call: Any, sagemaker: Any, lock_table: Any) -> None:
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint(RUN)
    lock_table(pk="kelpie#serving", endpoint_config=RUN)
    result = call(a_state(endpoint={"exists": False}, package={"ModelPackageArn": "arn:aws:sagemaker:x"}))
    assert result["done"]
    assert sagemaker.calls == []


@pytest.mark.parametrize("operation", ["delete_endpoint_config", "delete_model", "update_model_package"])
def test_one_failed_step_neither_stops_the_others_nor_hides_the_cause(
    call: Any, sagemaker: Any, operation: str
) -> None:
    sagemaker.make_deployable(RUN)
    arn = sagemaker.make_package("PendingManualApproval")
    sagemaker.fail[operation] = "AccessDeniedException"
    result = call(a_state(package={"ModelPackageArn": arn}))
    assert result["done"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model", "update_model_package"]
    assert "SmokeTest failed: Accuracy 0.1 is too low; to fix it, " in result["cause"]
    assert result["cause"].count(": failed, ") == 1
    assert f"{operation} is not possible now" in result["cause"]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("describe_training_job", "ThrottlingException"),
        ("stop_training_job", "InternalFailure"),
        ("describe_endpoint", "ServiceUnavailable"),
        ("update_endpoint", "ResourceInUse"),
        ("delete_endpoint_config", "ResourceInUse"),
        ("delete_model", "ConflictException"),
        ("update_model_package", "ConflictException"),
    ],
)
def test_a_step_that_fails_for_now_is_tried_again_and_then_nothing_is_left_undone(
    call: Any, run_to_end: Any, sagemaker: Any, operation: str, code: str
) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    sagemaker.make_training_job(f"{RUN}-0", "InProgress")
    endpoint = sagemaker.make_endpoint(RUN)
    arn = sagemaker.make_package("PendingManualApproval")
    before = {"exists": True, "EndpointConfigName": "kelpie-old"}
    state = a_state(package={"ModelPackageArn": arn}, endpoint=before)
    sagemaker.fail[operation] = code
    for _ in range(4):
        state["clean_up"] = call(state)
        assert not state["clean_up"]["done"]
        endpoint.endpoint_status = "InService"
        if operation != "stop_training_job":
            sagemaker.backend.training_jobs[f"{RUN}-0"].training_job_status = "Stopped"
    del sagemaker.fail[operation]
    result = run_to_end(state)
    assert "left undone" not in result["cause"]
    assert endpoint.endpoint_config_name == "kelpie-old"
    assert list(sagemaker.backend.endpoint_configs) == ["kelpie-old"]
    package = sagemaker.client.describe_model_package(ModelPackageName=arn)
    assert package["ModelApprovalStatus"] == "Rejected"


def test_the_lock_is_not_given_up_while_it_cannot_be_read(
    call: Any, aws: Any, sagemaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com")

    sagemaker.make_deployable(RUN)
    state, known = a_state(), clean_up.client
    with monkeypatch.context() as broken:
        silent = SimpleNamespace(get_item=no_answer)
        broken.setattr(clean_up, "client", lambda service: silent if service == "dynamodb" else known(service))
        state["clean_up"] = call(state)
    assert not state["clean_up"]["done"]
    assert sagemaker.calls == []
    result = call(state)
    assert result["done"]
    assert "left undone" not in result["cause"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model"]


@pytest.mark.parametrize("operation", ["describe_endpoint", "update_endpoint", "delete_model"])
def test_what_is_forbidden_is_not_tried_again(call: Any, sagemaker: Any, operation: str) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint("kelpie-old" if operation == "delete_model" else RUN)
    sagemaker.fail[operation] = "AccessDeniedException"
    result = call(a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"}))
    assert result["done"]
    assert f"{operation} is not possible now" in result["cause"]


def test_when_the_endpoint_cannot_be_looked_at_what_it_may_use_is_kept(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(RUN)
    arn = sagemaker.make_package("PendingManualApproval")
    sagemaker.fail["describe_endpoint"] = "AccessDeniedException"
    result = call(a_state(package={"ModelPackageArn": arn}, endpoint={"exists": False}))
    assert result["done"]
    assert sagemaker.calls == ["update_model_package"]
    assert "look at endpoint kelpie: failed, " in result["cause"]


def test_a_failure_of_an_earlier_call_is_still_reported_at_the_end(call: Any, sagemaker: Any, aws: Any) -> None:
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint(RUN)
    state = a_state(endpoint={"exists": False})
    state["clean_up"] = {"actions": ["deregister scalable target x: failed, AccessDenied"]}
    state["clean_up"] = call(state)
    assert "left undone: deregister scalable target x: failed, AccessDenied" in call(state)["cause"]


def test_cleaning_up_again_changes_nothing_more(run_to_end: Any, call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint(RUN)
    state = a_state(endpoint={"exists": True, "EndpointConfigName": "kelpie-old"})
    first = run_to_end(state)
    calls = list(sagemaker.calls)
    again = call(state)
    assert again == first
    assert [name for name in sagemaker.calls[len(calls) :] if not name.startswith("delete_")] == []


# How it scales


@pytest.fixture
def updated(sagemaker: Any, scaling: Scaling) -> Any:
    """The state of an execution that updated an endpoint, which scaled from 1 to 2 to one policy; 1 to 4 to another."""

    def make(instance_type: str = OLD, *, deregistered: bool = False, config: str = RUN) -> dict[str, Any]:
        sagemaker.make_deployable("kelpie-old", instance_type=OLD)
        sagemaker.make_deployable(RUN, instance_type=instance_type)
        sagemaker.make_endpoint(config)
        scaling.scale(1, 2, invocations=4.0)
        before = scaling.answers()
        if deregistered:
            scaling.deregister_scalable_target(**TARGET)
        else:
            scaling.scale(1, 4, invocations=9.0, another=1.0)
        scaling.calls.clear()
        return a_state(
            endpoint={"exists": True, "EndpointConfigName": "kelpie-old"},
            serving={"config": {"variant": {"InstanceType": OLD}}},
            settings={"hosting": {"instance_type": instance_type}},
            scaling=before,
        )

    return make


BEFORE = ([(1, 2)], {"invocations": 4.0})


def test_an_endpoint_that_goes_back_scales_as_before(run_to_end: Any, updated: Any, scaling: Scaling) -> None:
    result = run_to_end(updated())
    assert scaling.now() == BEFORE
    assert scaling.calls == ["register_scalable_target", "put_scaling_policy", "delete_scaling_policy"]
    assert result["actions"][:4] == [
        "put back config kelpie-old on endpoint kelpie: done",
        "put back scalable target endpoint/kelpie/variant/AllTraffic: done",
        "put back scaling policy invocations: done",
        "delete scaling policy another: done",
    ]


def test_scaling_is_put_back_only_after_the_old_config_serves(call: Any, updated: Any, scaling: Scaling) -> None:
    assert not call(updated())["done"]
    assert scaling.calls == []


@pytest.mark.parametrize("deregistered", [False, True])
def test_going_back_to_other_instances_takes_the_target_away_first(
    run_to_end: Any, call: Any, updated: Any, scaling: Scaling, sagemaker: Any, deregistered: bool
) -> None:
    state = updated(NEW, deregistered=deregistered)
    state["clean_up"] = call(state)
    assert scaling.now() == ([], {})
    assert sagemaker.calls == ["update_endpoint"]
    sagemaker.backend.endpoints["kelpie"].endpoint_status = "InService"
    assert "left undone" not in run_to_end(state)["cause"]
    assert scaling.now() == BEFORE


def test_a_target_that_was_taken_away_for_an_update_that_never_began_is_registered_again(
    call: Any, updated: Any, scaling: Scaling, sagemaker: Any
) -> None:
    assert call(updated(NEW, deregistered=True, config="kelpie-old"))["done"]
    assert scaling.now() == BEFORE
    assert "update_endpoint" not in sagemaker.calls


def test_scaling_that_is_as_before_is_not_touched(call: Any, updated: Any, scaling: Scaling) -> None:
    state = updated(config="kelpie-old")
    state["scaling"] = scaling.answers()
    assert call(state)["done"]
    assert scaling.calls == []


def test_a_switch_that_a_person_set_is_put_back_with_the_target(
    call: Any, updated: Any, scaling: Scaling, aws: Any
) -> None:
    state = updated(NEW, deregistered=True, config="kelpie-old")
    suspended = {"DynamicScalingInSuspended": True}
    state["scaling"]["target"]["ScalableTargets"][0]["SuspendedState"] = suspended
    assert call(state)["done"]
    assert scaling.answers()["target"]["ScalableTargets"][0]["SuspendedState"] == suspended


def test_an_endpoint_that_did_not_scale_does_not_scale_afterwards(
    run_to_end: Any, updated: Any, scaling: Scaling
) -> None:
    state = updated()
    state["scaling"] = {"target": {"ScalableTargets": []}, "policies": {"ScalingPolicies": []}}
    run_to_end(state)
    assert scaling.now() == ([], {})


@pytest.mark.parametrize("known", [{}, {"target": {"ScalableTargets": []}}])
def test_scaling_that_this_execution_never_came_to_is_left_alone(
    call: Any, updated: Any, scaling: Scaling, known: dict[str, Any]
) -> None:
    state = updated(config="kelpie-old")
    state["scaling"] = known
    assert call(state)["done"]
    assert scaling.calls == []


def test_scaling_of_an_endpoint_that_somebody_else_changed_meanwhile_is_left_alone(
    call: Any, updated: Any, scaling: Scaling, sagemaker: Any
) -> None:
    sagemaker.make_deployable("somebody-elses")
    assert call(updated(config="somebody-elses"))["done"]
    assert scaling.calls == []


SCALING_CALLS = ["describe_scalable_targets", "describe_scaling_policies", "deregister_scalable_target"]
SCALING_CALLS += ["register_scalable_target", "put_scaling_policy"]


@pytest.mark.parametrize("operation", SCALING_CALLS)
def test_a_call_about_scaling_that_fails_for_now_is_repeated(
    call: Any, run_to_end: Any, updated: Any, scaling: Scaling, sagemaker: Any, operation: str
) -> None:
    state = updated(NEW)
    scaling.fail[operation] = "ConcurrentUpdateException"
    for _ in range(3):
        state["clean_up"] = call(state)
        assert not state["clean_up"]["done"]
        sagemaker.backend.endpoints["kelpie"].endpoint_status = "InService"
    scaling.fail.clear()
    assert "left undone" not in run_to_end(state)["cause"]
    assert scaling.now() == BEFORE


@pytest.mark.parametrize("operation", SCALING_CALLS)
def test_a_call_about_scaling_that_is_forbidden_is_reported_and_the_rest_is_done(
    run_to_end: Any, updated: Any, scaling: Scaling, sagemaker: Any, operation: str
) -> None:
    scaling.fail[operation] = "AccessDeniedException"
    result = run_to_end(updated(NEW))
    assert f"{operation} is not possible now" in result["cause"]
    assert sagemaker.backend.endpoints["kelpie"].endpoint_config_name == "kelpie-old"
    assert list(sagemaker.backend.endpoint_configs) == ["kelpie-old"]


def test_an_endpoint_is_not_deleted_before_its_target_is_gone(call: Any, sagemaker: Any, scaling: Scaling) -> None:
    sagemaker.make_deployable(RUN)
    sagemaker.make_endpoint(RUN)
    scaling.scale(1, 3)
    scaling.fail["deregister_scalable_target"] = "InternalServiceException"
    state = a_state(endpoint={"exists": False})
    state["clean_up"] = call(state)
    assert not state["clean_up"]["done"]
    assert sagemaker.calls == []
    scaling.fail.clear()
    call(state)
    assert sagemaker.calls == ["delete_endpoint"]
    assert scaling.now() == ([], {})


# A change whose answer was lost


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", ["States.Timeout", "SageMaker.SdkClientException"])
def test_a_change_that_begins_after_its_task_gave_up_is_undone_too(
    call: Any, run_to_end: Any, sagemaker: Any, exists: bool, error: str
) -> None:
    sagemaker.make_deployable("kelpie-old")
    sagemaker.make_deployable(RUN)
    if exists:
        sagemaker.make_endpoint("kelpie-old")
    state = a_state(
        failed={"UpdateEndpoint" if exists else "CreateEndpoint": {"Error": error, "Cause": ""}},
        endpoint={"exists": exists, "EndpointConfigName": "kelpie-old" if exists else ""},
    )
    state["clean_up"] = call(state)
    assert not state["clean_up"]["done"]
    assert sagemaker.calls == []
    if exists:  # only now SageMaker shows what it was asked for
        sagemaker.backend.endpoints["kelpie"].endpoint_config_name = RUN
    else:
        sagemaker.make_endpoint(RUN)
    result = run_to_end(state)
    assert "left undone" not in result["cause"]
    assert list(sagemaker.backend.endpoint_configs) == ["kelpie-old"]
    serving = [endpoint.endpoint_config_name for endpoint in sagemaker.backend.endpoints.values()]
    assert serving == (["kelpie-old"] if exists else [])


def test_a_change_that_was_refused_is_not_waited_for(call: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(RUN)
    refused = {"CreateEndpoint": {"Error": "SageMaker.ResourceLimitExceededException", "Cause": "your quota is 0"}}
    assert call(a_state(failed=refused, endpoint={"exists": False}))["done"]
    assert sagemaker.calls == ["delete_endpoint_config", "delete_model"]


# Cut off anywhere


def test_cut_off_after_any_call_it_still_comes_to_the_same_end(
    call: Any, run_to_end: Any, updated: Any, scaling: Scaling, sagemaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(BaseException):
        pass

    state, made = updated(NEW), []
    act = clean_up.Reconciliation.act

    def cut_off_after(self: Any, what: str, *args: Any, **parameters: Any) -> bool:
        done = act(self, what, *args, **parameters)
        if what not in made:
            made.append(what)
            raise CutOff
        return done

    with monkeypatch.context() as patched:
        patched.setattr(clean_up.Reconciliation, "act", cut_off_after)
        for _ in range(20):
            try:
                state["clean_up"] = call(state)
                if state["clean_up"]["done"]:
                    break
            except CutOff:
                sagemaker.backend.endpoints["kelpie"].endpoint_status = "InService"
    assert len(made) >= 6, made
    assert state["clean_up"]["done"]
    assert scaling.now() == BEFORE
    assert sagemaker.backend.endpoints["kelpie"].endpoint_config_name == "kelpie-old"
    assert list(sagemaker.backend.endpoint_configs) == ["kelpie-old"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: st.dictionaries(
            st.sampled_from(["failed", "train", "Train", "Error", "Cause", "names", "x"]), inner, max_size=4
        ),
        max_leaves=8,
    )
)
def test_any_state_is_explained(state: Any) -> None:
    error, cause = explain(state if isinstance(state, dict) else {}, ME)
    assert error
    assert "to fix it, " in cause


# What the cause says


def cause_of(name: str, error: str, cause: Any, **state: Any) -> str:
    text = cause if isinstance(cause, str) else json.dumps(cause)
    return explain({"failed": {name: {"Error": error, "Cause": text}}, **state}, ME)[1]


@pytest.mark.parametrize(
    ("name", "error", "cause", "expected"),
    [
        (
            "CheckData",
            "InvalidData",
            {"errorMessage": "Found 1 class folder.", "errorType": "InvalidData", "stackTrace": ["..."]},
            "CheckData failed: Found 1 class folder; to fix it, correct the data set or data.s3_uri and start again",
        ),
        (
            "Train",
            "States.TaskFailed",
            {
                "TrainingJobName": "kelpie-1-0",
                "TrainingJobStatus": "Failed",
                "FailureReason": "AlgorithmError: no test pictures for corgi",
            },
            "Train failed: AlgorithmError: no test pictures for corgi; to fix it, correct what the training log says "
            "and start again",
        ),
        (
            "Train",
            "TrainingNotCompleted",
            {
                "TrainingJobName": "kelpie-1-0",
                "TrainingJobStatus": "Stopped",
                "SecondaryStatus": "MaxWaitTimeExceeded",
            },
            "Train failed: kelpie-1-0 ended Stopped (MaxWaitTimeExceeded); to fix it, start again later, choose "
            "another training.instance_type, or set training.managed_spot to false",
        ),
        (
            "UpdateEndpoint",
            "UpdateRolledBack",
            {
                "EndpointName": "kelpie",
                "EndpointStatus": "InService",
                "EndpointConfigName": "kelpie-old",
                "FailureReason": "alarm kelpie-errors",
            },
            "UpdateEndpoint failed: kelpie is InService with config kelpie-old: alarm kelpie-errors; to fix it, read "
            "the endpoint's log in /aws/sagemaker/Endpoints and start again",
        ),
        (
            "QualityGate",
            "QualityGateRefused",
            "test accuracy 0.5 is below gate.min_test_accuracy 0.9",
            "QualityGate failed: test accuracy 0.5 is below gate.min_test_accuracy 0.9; to fix it, train longer "
            "(training.epochs), improve the data, or change gate.min_test_accuracy or gate.max_regression",
        ),
        (
            "CreateModel",
            "SageMaker.AmazonSageMakerException",
            "User: x is not authorized to perform: sagemaker:CreateModel (Service: SageMaker, Status Code: 400, "
            "Request ID: 1-2) (SDK Attempt Count: 1)",
            "CreateModel failed: User: x is not authorized to perform: sagemaker:CreateModel; to fix it, allow that "
            "action in workflow/stack.yaml and deploy it again",
        ),
        (
            "SmokeTest",
            "States.Timeout",
            "",
            f"SmokeTest failed: it took longer than its TimeoutSeconds; to fix it, look at `kelpie describe {ME}`",
        ),
    ],
)
def test_the_cause_is_one_sentence_of_state_cause_and_fix(name: str, error: str, cause: Any, expected: str) -> None:
    assert cause_of(name, error, cause) == expected


def test_the_message_is_found_in_json_that_was_cut_off() -> None:
    whole = json.dumps({"TrainingJobName": "x", "FailureReason": 'AlgorithmError: "dogs" is broken', "More": "y" * 99})
    assert read_cause(whole[:90], "States.TaskFailed") == 'AlgorithmError: "dogs" is broken'


def test_a_message_of_many_lines_becomes_one_of_bounded_length() -> None:
    message = read_cause(json.dumps({"errorMessage": "first\n\n  second\n" + "x" * 5000}), "Error")
    assert message.startswith("first second xxx")
    assert 1024 < len(message) < 1250


def test_an_attempt_that_a_later_one_made_good_is_not_blamed() -> None:
    failed = {
        "SmokeTest": {"Error": "SmokeTestFailed", "Cause": "too slow"},
        "Train": {"Error": "States.TaskFailed", "Cause": "CapacityError"},
    }
    error, cause = explain({"failed": failed, "train": {"TrainingJobStatus": "Completed"}}, ME)
    assert error == "SmokeTestFailed"
    assert cause.startswith("SmokeTest failed: too slow")


def test_error_and_cause_fit_the_fail_state(call: Any) -> None:
    result = call({"failed": {"Train": {"Error": "E" * 1000, "Cause": "C" * 100_000}}})
    assert len(result["error"]) == 256
    assert len(result["cause"]) <= 4000
