"""What a browser shows: the state graph and the report."""
