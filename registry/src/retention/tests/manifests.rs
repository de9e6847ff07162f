use super::*;

#[tokio::test]
async fn manifests_to_which_no_tag_leads_go_after_their_time() {
    let fixture = Fixture::new();
    let child = fixture.push(&image(1), &[], 9).await;
    let index = fixture.push(&index(&[&child]), &["1"], 9).await;
    let signature = fixture.push(&referrer(&child), &[], 9).await;
    let old = fixture.push(&image(2), &[], 9).await;
    let of_old = fixture.push(&referrer(&old), &[], 9).await;
    let recent = fixture.push(&image(3), &[], 1).await;
    let mut settings = settings(None, Some(DAY * 7));
    settings.dry_run = true;
    let would = fixture.run(&settings);
    settings.dry_run = false;
    let report = fixture.run(&settings);
    let mut gone = [old.as_str(), of_old.as_str()];
    gone.sort_unstable();
    for report in [&would, &report] {
        assert_eq!(deleted(report), gone);
        assert_eq!(report.total.manifests_deleted, 2);
        let kept = KeptManifests {
            tagged: 1,
            recent: 1,
            needed: 2,
        };
        assert_eq!(report.total.manifests_kept, kept);
        assert_eq!(report.total.tags_kept.no_rule, 1);
        assert_eq!(
            report.deletions[0].reason,
            "no tag leads to it, not used for 9 days"
        );
    }
    for digest in [&child, &index, &signature, &recent] {
        assert!(fixture.has(digest).await);
    }
    assert!(!fixture.has(&old).await && !fixture.has(&of_old).await);
    assert_eq!(fixture.run(&settings).total.manifests_deleted, 0);
}

#[tokio::test]
async fn a_manifest_that_loses_its_tag_is_kept_for_the_time_from_then_on() {
    let fixture = Fixture::new();
    let digest = fixture.push(&image(1), &["1"], 9).await;
    fixture.push(&image(2), &["2"], 1).await;
    let settings = newest(1, Some(DAY * 7));
    let report = fixture.run(&settings);
    assert_eq!(deleted(&report), ["1"]);
    assert!(fixture.has(&digest).await);
    fixture.age(&entry("a", &digest), 8);
    let report = fixture.run(&settings);
    assert_eq!(deleted(&report), [digest.as_str()]);
    assert!(!fixture.has(&digest).await);
}

#[tokio::test]
async fn without_a_time_manifests_stay() {
    let fixture = Fixture::new();
    let digest = fixture.push(&image(1), &[], 900).await;
    let report = fixture.run(&newest(1, None));
    assert_eq!(report.repositories, 0);
    assert!(fixture.has(&digest).await);
}
