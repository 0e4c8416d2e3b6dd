"""What runs on the operator's machine and describes AWS: settings, state machine, stack, executions, local cloud."""
