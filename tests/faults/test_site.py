from tests.faults.site import GONE, RUNNING, summed

METRICS = """# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="smollm2"} 5.0
vllm:num_requests_running_max{engine="0"} 9.0
loraloom_requests_total{adapter="date@1",ending="answered",key="",status="2xx"} 40.0
loraloom_requests_total{adapter="date@1",ending="disconnected",key="",status="2xx"} 3.0
loraloom_requests_total{adapter="sql@1",ending="disconnected",key="",status="none"} 4.0
"""


def test_the_samples_of_a_metric_are_summed() -> None:
    assert summed(METRICS, RUNNING) == 5
    assert summed(METRICS, GONE) == 7
