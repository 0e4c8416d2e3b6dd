"""The local AWS account: moto's APIs with real processes behind them. Only `cloud` is for the outside."""
