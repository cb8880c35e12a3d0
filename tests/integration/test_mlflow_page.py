"""What a person sees of a study in MLflow's page, in a real browser."""

import os
import shutil

import pytest

from study.tracking.tracker import RunIdentity, Tracker
from tests.helpers.mlflow_server import MlflowServer
from tests.helpers.tracked import show

playwright_api = pytest.importorskip("playwright.sync_api")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
N_TRIALS = 8

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine"),
]


def write_study(uri, folder):
    """A study of eight trials and one song model, as the driver writes it."""
    allowed = {"latent_dim", "lr", "lambda_prior", "n_states"}
    tracker = Tracker(uri, "finches", {"study": "finches"}, folder / "sent", allowed)
    tracker.start_study({}, "finches-seed0", {})
    for i in range(N_TRIALS):
        trial = RunIdentity("trial", trial_id=f"trial-{i:03d}")
        params = {"latent_dim": 8 * (1 + i % 3), "lr": 0.001 * (i + 1), "lambda_prior": 10.0 + i}
        rows = {
            200 * step: {"valid/objective": 1.0 / step + 0.01 * i, "valid/recon_l1": 0.1 / step}
            for step in range(1, 5)
        }
        show(
            tracker, trial, rows, name=trial.trial_id, params=params, status="FINISHED",
            tags={"status": "completed"},
        )  # fmt: skip
    song = RunIdentity("hmm", "trial-000", "sim1", "60")
    rows = {k: {"hmm/bic": 5000.0 + (k - 7) ** 2} for k in range(2, 17)}
    show(tracker, song, rows, name="hmm-sim1-60", status="FINISHED")
    tracker.end_study("FINISHED")
    assert tracker.close(60.0) == 0
    return tracker.experiment_id


@pytest.fixture(scope="module")
def page_of(tmp_path_factory):
    """Opens a page of the server below the experiment's address."""
    folder = tmp_path_factory.mktemp("page")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = write_study(uri, folder)
    server = MlflowServer(folder)
    server.start()
    try:
        with playwright_api.sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(90_000)

            def open_page(path):
                page.goto(f"{server.uri}/#/experiments/{experiment}/{path}")
                page.reload()  # only what stands behind the # has changed
                return page

            yield open_page
            browser.close()
    finally:
        server.kill()


def shoot(page, name):
    """A picture to look at, where a folder for it is named."""
    if folder := os.environ.get("BIRDSONG_SCREENSHOTS"):
        page.wait_for_timeout(2000)
        page.screenshot(path=f"{folder}/{name}.png")


def test_the_table_of_runs_shows_trials_and_their_objective(page_of):
    page = page_of('runs?searchFilter=tags.stage="trial"')
    page.get_by_text("trial-007").first.wait_for()
    for i in range(N_TRIALS):
        assert page.get_by_text(f"trial-{i:03d}").count() >= 1
    assert page.get_by_text("hmm-sim1-60").count() == 0
    shoot(page, "runs")


def test_runs_are_grouped_by_the_study_that_they_belong_to(page_of):
    page = page_of('runs?searchFilter=tags.stage="trial"')
    page.get_by_text("trial-007").first.wait_for()
    page.get_by_text("Group by").first.click()
    page.get_by_placeholder("Search").last.fill("study_run_id")
    page.get_by_role("menuitemcheckbox", name="study_run_id").first.click()
    page.get_by_text("Group: ").first.wait_for()
    shoot(page, "group")


def test_eight_trials_are_compared_by_parallel_coordinates(page_of):
    page = page_of('runs?searchFilter=tags.stage="trial"')
    page.get_by_text("trial-007").first.wait_for()
    page.locator(".ag-header input.ag-checkbox-input:visible").first.check(force=True)
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_text(f"Comparing {N_TRIALS} Runs").first.wait_for()
    plot = page.locator(".js-plotly-plot").first
    plot.wait_for()
    axes = plot.locator(".axis-title").all_text_contents()
    assert {"latent_dim", "lr", "lambda_prior"} <= set(axes)
    assert any(name.startswith("valid/") for name in axes)
    shoot(page, "compare")


def test_the_bic_curve_of_a_bird_and_age_is_drawn_over_its_numbers_of_states(page_of):
    page = page_of('runs?searchFilter=tags.stage="hmm"')
    page.get_by_text("hmm-sim1-60").first.click()
    page.get_by_text("Model metrics").first.click()
    plot = page.locator(".js-plotly-plot").first
    plot.wait_for()
    assert page.get_by_text("hmm/bic").count() >= 1
    shoot(page, "bic")
