"""What an execution and an idle month cost on AWS."""
