"""What a rematerialisation policy knows attention's results by: a layer that keeps both runs the forward pass once."""

RESULT, LOG_SUM = "attention_result", "attention_log_sum"
