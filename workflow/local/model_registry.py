"""Model packages: what moto's model registry lacks or gets wrong."""

from __future__ import annotations

import re
import threading
from typing import Any

from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import SageMakerModelBackend


class ModelRegistry(SageMakerModelBackend):
    """moto's backend with version numbers that never repeat, and with deletions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As moto's; also called by `reset`."""
        super().__init__(*args, **kwargs)
        self.lock = threading.RLock()
        self._last_versions: dict[str, int] = {}

    def create_model_package(self, *args: Any, **kwargs: Any) -> str:
        """Number versions so that none repeats after a deletion: moto counts the packages that exist."""
        with self.lock:
            before = dict(self.model_packages)
            arn: str = super().create_model_package(*args, **kwargs)
            package = self.model_packages[arn]
            group = package.model_package_group_name
            if group is None:
                return arn
            version = self._last_versions.get(group, 0) + 1
            self._last_versions[group] = version
            self.model_package_name_mapping.pop(arn, None)
            package.model_package_version = version
            package.arn = re.sub(r"/\d+$", f"/{version}", arn)
            self.model_packages = {**before, package.arn: package}
            self.model_package_name_mapping.update({known: known for known in self.model_packages})
            return str(package.arn)

    def update_model_package(
        self,
        model_package_arn: str,
        model_approval_status: str | None,
        approval_description: str | None,
        customer_metadata_properties: dict[str, str] | None,
        *args: Any,
        **kwargs: Any,
    ) -> str:
        """Change only what the request names; moto empties the rest."""
        package = self.describe_model_package(model_package_arn)
        return super().update_model_package(
            model_package_arn,
            model_approval_status or package.model_approval_status,
            approval_description or package.approval_description,
            {**(package.customer_metadata_properties or {}), **(customer_metadata_properties or {})},
            *args,
            **kwargs,
        )

    def delete_model_package(self, name: str) -> None:
        """What DeleteModelPackage does, by ARN or by the name of an unversioned package."""
        with self.lock:
            package = self.describe_model_package(name)
            del self.model_packages[package.arn]
            for known in [key for key, arn in self.model_package_name_mapping.items() if arn == package.arn]:
                del self.model_package_name_mapping[known]

    def create_model_package_group(self, model_package_group_name: str, *args: Any, **kwargs: Any) -> str:
        """Refuse a name that exists, which moto would overwrite."""
        with self.lock:
            existing = self.model_package_groups.get(model_package_group_name)
            if existing is not None:
                raise ValidationError(f"Model Package Group already exists: {existing.arn}")
            return super().create_model_package_group(model_package_group_name, *args, **kwargs)

    def delete_model_package_group(self, name: str) -> None:
        """What DeleteModelPackageGroup does: only an empty group goes."""
        with self.lock:
            group = self.describe_model_package_group(name)
            if any(package.model_package_group_name == name for package in self.model_packages.values()):
                raise ValidationError(f"Model Package Group {group.arn} cannot be deleted: it is not empty.")
            del self.model_package_groups[name]
