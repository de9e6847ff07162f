//! Jobs of a store in a directory.

use std::fs;

use service::metrics::MetricsRegistry;
use service::shutdown::Trigger;
use tempfile::TempDir;

use super::*;
use crate::retention::RetentionSettings;
use crate::store::fs::refuser::Refuser;
use crate::store::fs::{Durability, OpenError};
use crate::store::suite::push;

/// At this rate a scrub of anything takes years.
const SLOW: u64 = 1;

fn settings() -> JobSettings {
    JobSettings {
        gc_schedule: None,
        grace: Duration::ZERO,
        untagged: None,
        scrub_schedule: None,
        scrub_rate: 1 << 30,
        retention_schedule: None,
        retention: Arc::new(RetentionSettings {
            dry_run: false,
            rules: Vec::new(),
        }),
        read_only: false,
    }
}

struct Fixture {
    directory: TempDir,
    registry: MetricsRegistry,
    maintenance: Maintenance,
}

async fn fixture(settings: JobSettings) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = FsStore::open(directory.path(), Durability::Relaxed, Arc::new(())).unwrap();
    push(&store, "a", &vec![7; 100_000]).await;
    let registry = MetricsRegistry::new("octoserve_");
    let families = MaintenanceFamilies::start(&registry);
    Fixture {
        directory,
        registry,
        maintenance: Maintenance::new(store, settings, Some(families)),
    }
}

impl Fixture {
    fn start(&self, job: &str) -> Result<JobWatch, StartError> {
        self.maintenance.request(&JobRequest {
            job: job.to_owned(),
            dry_run: false,
            repair: false,
        })
    }

    fn has(&self, sample: &str) -> bool {
        let mut exposition = String::new();
        self.registry.gather().write_text(&mut exposition);
        exposition.lines().any(|line| line == sample)
    }
}

async fn ended(mut job: JobWatch) -> JobEnd {
    let ended = job
        .wait_for(|state| matches!(state, JobState::Ended(_)))
        .await;
    match &*ended.unwrap() {
        JobState::Ended(end) => end.clone(),
        JobState::Running(_) => unreachable!(),
    }
}

#[tokio::test]
async fn a_job_is_followed_to_its_end_and_counted() {
    let fixture = fixture(settings()).await;
    let end = ended(fixture.start("scrub").unwrap()).await;
    assert!(end.ok, "{end:?}");
    let report: JobReport = serde_json::from_value(end.report).unwrap();
    assert!(matches!(&report, JobReport::Scrub(report) if report.checked == 1));
    assert!(fixture.has("octoserve_scrub_runs_total{result=\"ok\"} 1"));
    // Nobody needs the blob, and the grace is over.
    let end = ended(fixture.start("gc").unwrap()).await;
    let report: JobReport = serde_json::from_value(end.report).unwrap();
    assert!(
        matches!(&report, JobReport::Gc { report, .. } if report.blobs == 1),
        "{report:?}"
    );
    assert!(fixture.has("octoserve_gc_runs_total{result=\"ok\"} 1"));
    assert!(fixture.has("octoserve_gc_deleted_total{kind=\"blob\"} 1"));
}

#[tokio::test]
async fn corrupt_content_is_counted_and_is_no_error() {
    let fixture = fixture(settings()).await;
    let shard = fs::read_dir(fixture.directory.path().join("blobs/sha256")).unwrap();
    let shard = shard.last().unwrap().unwrap().path();
    let file = fs::read_dir(shard).unwrap().last().unwrap().unwrap().path();
    fs::write(file, "other").unwrap();
    let end = ended(fixture.start("scrub").unwrap()).await;
    assert!(end.ok);
    let report: JobReport = serde_json::from_value(end.report).unwrap();
    assert!(!report.is_sound());
    assert!(fixture.has("octoserve_scrub_corrupt_blobs_total 1"));
    assert!(fixture.has("octoserve_scrub_runs_total{result=\"ok\"} 1"));
}

#[tokio::test]
async fn a_job_that_panics_is_counted_and_the_next_one_runs() {
    let fixture = fixture(settings()).await;
    for job in JobKind::ALL.map(JobKind::name) {
        let disk = Refuser::of(fixture.directory.path());
        disk.panic();
        let end = ended(fixture.start(job).unwrap()).await;
        assert!(
            !end.ok && end.message == "the job failed: see the log",
            "{end:?}"
        );
        assert!(fixture.has(&format!("octoserve_{job}_runs_total{{result=\"error\"}} 1")));
        drop(disk);
        assert!(ended(fixture.start(job).unwrap()).await.ok);
        assert!(fixture.has(&format!("octoserve_{job}_runs_total{{result=\"ok\"}} 1")));
    }
}

#[tokio::test]
async fn one_of_a_kind_runs_at_a_time_and_the_end_of_the_registry_stops_it() {
    let slow = JobSettings {
        scrub_rate: SLOW,
        ..settings()
    };
    let fixture = fixture(slow).await;
    let (trigger, shutdown): (Trigger, _) = Shutdown::new();
    let serving = tokio::spawn({
        let maintenance = fixture.maintenance.clone();
        async move { maintenance.serve(shutdown, Duration::from_mins(1)).await }
    });
    let scrub = fixture.start("scrub").unwrap();
    let refused = fixture.start("scrub").unwrap_err().to_string();
    assert!(
        refused.starts_with("a scrub has been running for "),
        "{refused}"
    );
    // Another kind is another matter.
    assert!(ended(fixture.start("gc").unwrap()).await.ok);
    assert_eq!(
        fixture.start("explode").unwrap_err(),
        StartError::Unknown("explode".to_owned())
    );
    trigger.trigger();
    let end = ended(scrub).await;
    assert!(!end.ok && end.message == "it was interrupted", "{end:?}");
    serving.await.unwrap();
    assert_eq!(fixture.start("gc").unwrap_err(), StartError::Ending);
    assert!(fixture.has("octoserve_scrub_runs_total{result=\"interrupted\"} 1"));
    // The directory is free, though there are still handles to the jobs.
    let again = FsStore::open(fixture.directory.path(), Durability::Relaxed, Arc::new(()));
    assert!(!matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
}

#[tokio::test]
async fn jobs_run_by_themselves_again_and_again() {
    let often = Some(Schedule::Every(Duration::from_millis(1).into()));
    let scheduled = JobSettings {
        gc_schedule: often,
        scrub_schedule: often,
        ..settings()
    };
    let fixture = fixture(scheduled).await;
    let (trigger, shutdown) = Shutdown::new();
    let serving = tokio::spawn({
        let maintenance = fixture.maintenance.clone();
        async move { maintenance.serve(shutdown, Duration::from_mins(1)).await }
    });
    let runs = |kind: &str| {
        let line = format!("octoserve_{kind}_runs_total{{result=\"ok\"}} ");
        let mut exposition = String::new();
        fixture.registry.gather().write_text(&mut exposition);
        let runs = exposition
            .lines()
            .find_map(|found| found.strip_prefix(&line));
        runs.unwrap().parse::<u64>().unwrap()
    };
    while runs("gc") < 2 || runs("scrub") < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    trigger.trigger();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_job_whose_last_run_was_long_ago_runs_after_a_restart() {
    let daily = Some(Schedule::Every(Duration::from_hours(24).into()));
    let fixture = fixture(JobSettings {
        gc_schedule: daily,
        scrub_schedule: daily,
        ..settings()
    })
    .await;
    let file = |kind: &str| {
        fixture
            .directory
            .path()
            .join(format!("maintenance/{kind}-ended"))
    };
    let before = SystemTime::now() - Duration::from_hours(25);
    let ended = fs::File::create(file("gc")).unwrap();
    ended.set_modified(before).unwrap();
    let (trigger, shutdown) = Shutdown::new();
    let serving = tokio::spawn({
        let maintenance = fixture.maintenance.clone();
        async move { maintenance.serve(shutdown, Duration::from_mins(1)).await }
    });
    let noted =
        |kind: &str| fs::metadata(file(kind)).is_ok_and(|found| found.modified().unwrap() > before);
    while !fixture.has("octoserve_gc_runs_total{result=\"ok\"} 1")
        || !noted("gc")
        || !noted("scrub")
    {
        sleep(Duration::from_millis(1)).await;
    }
    trigger.trigger();
    serving.await.unwrap();
    // Its first run is a day after the first start.
    assert!(fixture.has("octoserve_scrub_runs_total{result=\"ok\"} 0"));
}

#[tokio::test]
async fn a_read_only_registry_is_only_looked_at() {
    let read_only = JobSettings {
        read_only: true,
        ..settings()
    };
    let fixture = fixture(read_only).await;
    for kind in [JobKind::Gc, JobKind::Retention] {
        let refused = fixture.start(kind.name()).unwrap_err();
        assert_eq!(refused, StartError::ReadOnly(kind));
        assert!(refused.to_string().ends_with("(--dry-run)"), "{refused}");
    }
    let repair = JobRequest {
        job: "scrub".to_owned(),
        dry_run: false,
        repair: true,
    };
    let refused = fixture.maintenance.request(&repair).unwrap_err();
    assert!(
        refused.to_string().ends_with("(without --repair)"),
        "{refused}"
    );
    assert!(ended(fixture.start("scrub").unwrap()).await.ok);
    let dry = JobRequest {
        job: "gc".to_owned(),
        dry_run: true,
        repair: false,
    };
    let end = ended(fixture.maintenance.request(&dry).unwrap()).await;
    assert!(
        end.ok && end.message.starts_with("would remove 1 blob"),
        "{end:?}"
    );
    assert!(fixture.has("octoserve_gc_runs_total{result=\"ok\"} 0"));
}
