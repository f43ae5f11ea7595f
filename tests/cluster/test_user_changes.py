"""What a user changes in mid-search takes effect: annotations, the job itself, a trial by hand."""

from collections import Counter

from kubernetes import client

from autotuner import keys
from autotuner.backends.kubernetes.pods import read_conditions
from tests.cluster.controllers import running
from tests.cluster.tuned_jobs import API, PLURAL, TunedJob, image_of, learner
from tests.controlplane.waiting import eventually


def test_a_tighter_target_rereads_the_ledger_and_continues(admin, namespace, nodes, new_controller):
    def picky(invocation):
        size = int(invocation.environment["AUTOTUNER_BATCH_SIZE"])
        top = {256: 0.99, 512: 0.95}.get(size, 0.92)
        for epoch, accuracy in enumerate((0.45, 0.72, 0.855, top), start=1):
            yield 0.05, f"accuracy={accuracy} epoch={epoch}"

    nodes.add_image("example/training", image_of(picky))
    job = TunedJob(annotations={keys.PREFIX + "max-trials": "6"}).create(admin, namespace)

    with running(new_controller()):
        eventually(job.is_in("Done"))
        assert job.answer.get("batch_size") == 1024, (job.status, job.ledger())
        before = job.ledger()
        job.annotate(target="accuracy >= 0.98", max_trials="16")
        eventually(lambda: len(job.ledger()) > len(before))
        eventually(job.is_in("Done"), 120)
        assert job.answer.get("batch_size") == 256, job.status

    assert job.ledger()[: len(before)] == before
    assert len(job.ledger()) > len(before)


def test_a_paused_search_starts_nothing_until_it_is_resumed(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.1)))
    job = TunedJob(annotations={keys.PREFIX + "paused": "true"}).create(admin, namespace)

    with running(new_controller()) as controller:
        eventually(job.is_in("Paused"))
        eventually(lambda: controller.metrics()['autotuner_studies{phase="Paused"}'] == 1)
        assert not job.trial_jobs()
        assert not job.ledger()
        job.annotate(paused=None)
        eventually(lambda: len(job.ledger()) >= 2)
        job.annotate(paused="true")
        eventually(job.is_in("Paused"))
        eventually(lambda: not job.trial_jobs())
        count = len(job.ledger())
        assert job.phase == "Paused"
        job.annotate(paused="false")
        eventually(job.is_in("Done"))

    assert len(job.ledger()) > count


def test_removing_the_target_stops_the_trials_and_keeps_the_ledger(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.5)))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()) as controller:
        eventually(lambda: len(job.ledger()) >= 1 and job.trial_jobs())
        job.annotate(target=None)
        eventually(lambda: not job.trial_jobs())
        eventually(lambda: not job.status)
        eventually(lambda: sum(v for k, v in controller.metrics().items() if "autotuner_studies" in k) == 0)
        kept = job.ledger()
        assert kept
        job.annotate(target="accuracy >= 0.9")
        eventually(job.is_in("Done"))

    assert job.ledger()[: len(kept)] == kept


def test_deleting_the_job_removes_everything_and_the_controller_lives_on(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.5)))
    job = TunedJob().create(admin, namespace)
    core, custom = client.CoreV1Api(admin), client.CustomObjectsApi(admin)

    with running(new_controller()):
        eventually(lambda: len(job.ledger()) >= 1 and job.trial_jobs())
        job.delete()
        eventually(lambda: not custom.list_namespaced_custom_object(*API, namespace, PLURAL)["items"])
        eventually(
            lambda: (
                not [
                    c
                    for c in core.list_namespaced_config_map(namespace).items
                    if c.metadata.name.startswith("digits")
                ]
            )
        )
        eventually(lambda: not core.list_namespaced_pod(namespace).items)
        again = TunedJob().create(admin, namespace)
        eventually(again.is_in("Done"))


def test_a_trial_deleted_by_hand_is_run_again(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.3)))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        trial = eventually(job.trial_jobs)[0]["metadata"]["name"]
        client.CustomObjectsApi(admin).delete_namespaced_custom_object(*API, namespace, PLURAL, trial)
        eventually(job.is_in("Done"))

    assert job.answer["batch_size"] == 512
    assert not job.trial_jobs()


def test_mistakes_are_reported_and_no_trial_starts_until_they_are_fixed(
    admin, namespace, nodes, new_controller
):
    nodes.add_image("example/training", image_of(learner(largest=4096)))
    job = TunedJob(annotations={keys.TARGET: "93%"}).create(admin, namespace)

    with running(new_controller()):
        eventually(job.is_in("Invalid"))
        assert "autotuner.dev/target is '93%'" in job.status["message"]
        assert not job.trial_jobs()
        job.annotate(target="accuracy >= 0.9")
        eventually(job.is_in("Done"))


def test_apply_gives_the_job_its_answer_and_unsuspends_it_once(admin, namespace, nodes, new_controller):
    starts = []
    nodes.add_image("example/training", image_of(learner(largest=512, starts=starts, seconds=0.2)))
    job = TunedJob(annotations={keys.PREFIX + "apply": "true"}).create(admin, namespace)

    with running(new_controller()) as controller:
        eventually(job.is_in("Done"))
        spec = job.read().manifest["spec"]
        env = spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "AUTOTUNER_BATCH_SIZE", "value": "512"} in env
        assert spec["runPolicy"]["suspend"] is False
        # The user holds it again: it is theirs now.
        job.patch({"spec": {"runPolicy": {"suspend": True}}})
        controller.terminate()
        controller.start()
        controller.wait_until_ready()
        eventually(lambda: controller.metrics().get('autotuner_studies{phase="Done"}') == 1)

    assert job.read().manifest["spec"]["runPolicy"]["suspend"] is True
    assert Counter(start for start in starts if start.startswith("digits-")).most_common(1)[0][1] == 1


def test_a_cap_over_all_jobs_is_kept_and_no_job_starves(admin, namespace, nodes, new_controller):
    nodes.add_image("example/training", image_of(learner(largest=512, seconds=0.1)))
    jobs = [TunedJob(f"job-{n}", batch_size="256..512").create(admin, namespace) for n in range(4)]
    most = 0

    def all_done():
        nonlocal most
        trials = client.CustomObjectsApi(admin).list_namespaced_custom_object(
            *API, namespace, PLURAL, label_selector=keys.TRIAL_JOB_UID
        )["items"]
        conditions = [read_conditions(trial) for trial in trials]
        most = max(most, sum(not (c.has_succeeded or c.has_failed) for c in conditions))
        return all(job.phase == "Done" for job in jobs)

    with running(new_controller(max_parallel_trials=2)):
        eventually(all_done, 180)

    assert most == 2


def test_a_metric_in_doubt_holds_the_study_until_its_owner_says_how_to_read_it(
    admin, namespace, nodes, new_controller
):
    starts = []

    def twice(invocation):
        starts.append(invocation.environment["AUTOTUNER_TRIAL"])
        batch, rate = (
            float(invocation.environment[f"AUTOTUNER_{name}"]) for name in ("BATCH_SIZE", "LEARNING_RATE")
        )
        # Runs equal to the last digit are those of a script that does not use what it is given.
        top = (0.95 if batch <= 512 else 0.5) - 1e-6 * batch - 1e-3 * rate
        for epoch in range(1, 5):
            yield 0.05, f"model accuracy={0.1 * epoch:.4f} epoch={epoch}"
            yield 0.0, f"ema accuracy={top * (1 - 0.3**epoch):.6f} epoch={epoch}"

    nodes.add_image("example/training", image_of(twice))
    job = TunedJob().create(admin, namespace)

    with running(new_controller()):
        eventually(job.is_in("Invalid"))
        status = job.status
        assert status["reason"] == "MetricInDoubt"
        assert "add autotuner.dev/metric-pattern" in status["message"]
        assert not job.ledger()
        job.annotate(metric_pattern=r"ema accuracy=(?P<value>\S+) epoch=(?P<step>\d+)")
        eventually(job.is_in("Done"), 120)

    assert job.answer["batch_size"] == 512
    # What ran is read again, and not run again.
    assert starts.count("0") == 1
    assert job.status["reads"].startswith("accuracy=0.664")
    assert "at step 1 from: ema accuracy=0.664" in job.status["reads"]
    assert "MetricRead" in job.events()
    assert "AUTOTUNER_BATCH_SIZE" not in job.status["message"]
