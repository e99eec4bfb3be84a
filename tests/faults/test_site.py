from tests.faults.site import ABORTS, RUNNING, summed

METRICS = """# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="smollm2"} 5.0
vllm:num_requests_running_max{engine="0"} 9.0
vllm:request_success_total{engine="0",finished_reason="stop"} 40.0
vllm:request_success_total{engine="0",finished_reason="abort"} 3.0
vllm:request_success_total{engine="1",finished_reason="abort"} 4.0
"""


def test_the_samples_of_a_metric_are_summed() -> None:
    assert summed(METRICS, RUNNING) == 5
    assert summed(METRICS, ABORTS) == 7
