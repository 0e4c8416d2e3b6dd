"""The resource types of messages and events, as AWS API calls: queues, topics' policies, schedules, rules.

See resources.py for what a resource type is.
"""

from __future__ import annotations

import json
from typing import Any

from workflow.local.resources import Properties, Resource, ResourceType, Wanted


class Queue(ResourceType):
    """AWS::SQS::Queue."""

    name_property = "QueueName"

    def create(self, wanted: Wanted) -> Resource:
        sqs = self.cloud.client("sqs")
        url = sqs.create_queue(QueueName=wanted.name, Attributes=self._attributes(wanted.properties))["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return Resource(url, wanted, {"Arn": arn, "QueueName": wanted.name, "QueueUrl": url})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.cloud.client("sqs").set_queue_attributes(
            QueueUrl=resource.physical_resource_id, Attributes=self._attributes(wanted.properties)
        )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("sqs").delete_queue(QueueUrl=resource.physical_resource_id)

    @staticmethod
    def _attributes(properties: Properties) -> dict[str, str]:
        """Attributes are texts: JSON for a policy, "true" for a switch."""
        values = {key: value for key, value in properties.items() if key not in ("QueueName", "Tags")}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}


class QueuePolicy(ResourceType):
    """AWS::SQS::QueuePolicy."""

    def create(self, wanted: Wanted) -> Resource:
        self._put(wanted.properties["Queues"], json.dumps(wanted.properties["PolicyDocument"]))
        return Resource(wanted.name, wanted, {"Id": wanted.name})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        gone = [url for url in resource.wanted.properties["Queues"] if url not in wanted.properties["Queues"]]
        self._put(gone, "")
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        self._put(resource.wanted.properties["Queues"], "")

    def _put(self, urls: list[str], policy: str) -> None:
        for url in urls:
            self.cloud.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})


class TopicPolicy(ResourceType):
    """AWS::SNS::TopicPolicy; a topic whose policy goes has the one again that it was created with."""

    def create(self, wanted: Wanted) -> Resource:
        sns = self.cloud.client("sns")
        before = {
            topic: sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"]
            for topic in wanted.properties["Topics"]
        }
        self._put(wanted)
        return Resource(wanted.name, wanted, {"Id": wanted.name, "PoliciesBefore": before})

    def update(self, _: Resource, wanted: Wanted) -> None:
        self._put(wanted)

    def delete(self, resource: Resource) -> None:
        for topic, policy in resource.attributes["PoliciesBefore"].items():
            self.cloud.client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)

    def _put(self, wanted: Wanted) -> None:
        policy = json.dumps(wanted.properties["PolicyDocument"])
        for topic in wanted.properties["Topics"]:
            self.cloud.client("sns").set_topic_attributes(TopicArn=topic, AttributeName="Policy", AttributeValue=policy)


class Subscription(ResourceType):
    """AWS::SNS::Subscription; an e-mail address is kept, and no mail is sent."""

    replaces = True

    def create(self, wanted: Wanted) -> Resource:
        properties = wanted.properties
        attributes = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in properties.items()
            if key not in ("TopicArn", "Protocol", "Endpoint", "Region")
        }
        arn = self.cloud.client("sns").subscribe(
            TopicArn=properties["TopicArn"],
            Protocol=properties["Protocol"],
            Endpoint=properties["Endpoint"],
            Attributes=attributes,
            ReturnSubscriptionArn=True,
        )["SubscriptionArn"]
        return Resource(arn, wanted, {"Arn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None: ...

    def delete(self, resource: Resource) -> None:
        self.cloud.client("sns").unsubscribe(SubscriptionArn=resource.physical_resource_id)


class Schedule(ResourceType):
    """AWS::Scheduler::Schedule."""

    name_property = "Name"

    def create(self, wanted: Wanted) -> Resource:
        arn = self.cloud.client("scheduler").create_schedule(**self._request(wanted.name, wanted))["ScheduleArn"]
        return Resource(wanted.name, wanted, {"Arn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.cloud.client("scheduler").update_schedule(**self._request(resource.physical_resource_id, wanted))

    def delete(self, resource: Resource) -> None:
        group = resource.wanted.properties.get("GroupName", "default")
        self.cloud.client("scheduler").delete_schedule(Name=resource.physical_resource_id, GroupName=group)

    @staticmethod
    def _request(name: str, wanted: Wanted) -> dict[str, Any]:
        """The request; numbers may come from parameters, as text."""
        request: dict[str, Any] = {**wanted.properties, "Name": name}
        window = dict(request["FlexibleTimeWindow"])
        if "MaximumWindowInMinutes" in window:
            window["MaximumWindowInMinutes"] = int(window["MaximumWindowInMinutes"])
        return {**request, "FlexibleTimeWindow": window}


class Rule(ResourceType):
    """AWS::Events::Rule with its targets."""

    name_property = "Name"

    def create(self, wanted: Wanted) -> Resource:
        arn = self._put(wanted.name, wanted.properties)
        return Resource(wanted.name, wanted, {"Arn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        name = resource.physical_resource_id
        self._put(name, wanted.properties)
        gone = self._ids(resource.wanted.properties) - self._ids(wanted.properties)
        if gone:
            self.cloud.client("events").remove_targets(Rule=name, Ids=sorted(gone))

    def delete(self, resource: Resource) -> None:
        events, name = self.cloud.client("events"), resource.physical_resource_id
        if ids := self._ids(resource.wanted.properties):
            events.remove_targets(Rule=name, Ids=sorted(ids))
        events.delete_rule(Name=name)

    def _put(self, name: str, properties: Properties) -> str:
        events = self.cloud.client("events")
        rule = {key: value for key, value in properties.items() if key not in ("Targets", "EventPattern", "Tags")}
        if "EventPattern" in properties:
            rule["EventPattern"] = json.dumps(properties["EventPattern"])
        arn: str = events.put_rule(**{**rule, "Name": name})["RuleArn"]
        if properties.get("Targets"):
            answer = events.put_targets(Rule=name, Targets=properties["Targets"])
            if answer["FailedEntryCount"]:
                raise ValueError(f"Targets of rule {name} were refused: {answer['FailedEntries']}")
        return arn

    @staticmethod
    def _ids(properties: Properties) -> set[str]:
        return {target["Id"] for target in properties.get("Targets", ())}
