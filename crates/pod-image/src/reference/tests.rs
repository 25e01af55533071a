use proptest::prelude::*;

use super::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn full(text: &str) -> String {
    text.parse::<Reference>().unwrap().to_string()
}

#[test]
fn short_names_are_completed_as_docker_does() {
    for (text, expected) in [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("grafana/loki:3", "docker.io/grafana/loki:3"),
        ("quay.io/a/b/c", "quay.io/a/b/c:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("app:5000/x", "app:5000/x:latest"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("MYHOST/app", "MYHOST/app:latest"),
        ("localhostile/app", "docker.io/localhostile/app:latest"),
        ("a__b/c--d.e_f:T.a_g-1", "docker.io/a__b/c--d.e_f:T.a_g-1"),
        ("a---b", "docker.io/library/a---b:latest"),
    ] {
        assert_eq!(full(text), expected, "{text}");
    }
}

#[test]
fn a_digest_alone_gets_no_tag() {
    assert_eq!(full(&format!("alpine@{SHA}")), format!("docker.io/library/alpine@{SHA}"));
    let both: Reference = format!("alpine:3@{SHA}").parse().unwrap();
    assert_eq!(both.tag(), Some("3"));
    assert_eq!(both.to_string(), format!("docker.io/library/alpine:3@{SHA}"));
    assert_eq!(both.store_name(), format!("docker.io/library/alpine@{SHA}"));
}

#[test]
fn familiar_names_mean_the_same() {
    for (text, expected) in [
        ("alpine", "alpine:latest"),
        ("grafana/loki:3", "grafana/loki:3"),
        ("quay.io/a/b", "quay.io/a/b:latest"),
        ("docker.io/library/a/b", "library/a/b:latest"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.familiar(), expected);
        assert_eq!(full(&reference.familiar()), reference.to_string());
    }
}

#[test]
fn nonsense_is_refused_with_the_part_that_is_wrong() {
    for (text, expected) in [
        ("", "image reference is empty"),
        ("Alpine", "upper case"),
        ("quay.io/A", "upper case"),
        ("a:", "invalid tag ``"),
        ("a:-x", "invalid tag `-x`"),
        ("a:b:c", "invalid tag `b:c`"),
        ("a/", "invalid repository name `a/`"),
        ("/a", "invalid repository name `/a`"),
        ("a//b", "invalid repository name `a//b`"),
        ("a..b", "invalid repository name"),
        ("a___b", "invalid repository name"),
        ("-a", "invalid repository name"),
        ("a b", "invalid repository name"),
        ("../../etc/passwd", "invalid registry `..`"),
        ("https://quay.io/a", "invalid registry `https:`"),
        ("host:port/a", "invalid registry `host:port`"),
        ("host:99999/a", "invalid registry"),
        ("[::zz]/a", "invalid registry"),
        ("a@sha256:123", "invalid digest"),
        ("a@md5:d41d8cd98f00b204e9800998ecf8427e", "invalid digest"),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "looks like an image id"),
    ] {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let long = format!("quay.io/{}", "a".repeat(250));
    assert_eq!(long.parse::<Reference>().unwrap_err(), ParseReferenceError::TooLong(long));
    assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
}

#[test]
fn latest_is_a_tag_even_beside_a_digest() {
    let latest = |text: &str| text.parse::<Reference>().unwrap().is_latest_or_untagged();
    assert!(latest("alpine"));
    assert!(latest("alpine:latest"));
    assert!(latest(&format!("alpine:latest@{SHA}")));
    assert!(!latest("alpine:3"));
    assert!(!latest(&format!("alpine@{SHA}")));
}

#[test]
fn builtin_images_are_recognised() {
    let name = |text: &str| text.parse::<Reference>().unwrap().builtin_name().map(str::to_owned);
    assert_eq!(name("localhost/outrigger/logs:0.1.0").as_deref(), Some("logs"));
    assert_eq!(name("localhost:5000/outrigger/logs"), None);
    assert_eq!(name("outrigger/logs"), None);
    assert_eq!(name("localhost/other/logs"), None);
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in ".{0,80}") {
        let _ = text.parse::<Reference>();
    }

    #[test]
    fn what_parses_survives_a_round_trip(text in "([a-zA-Z0-9.]{1,8}(:[0-9]{1,5})?/)?[a-z0-9._-]{1,8}(/[a-z0-9_.-]{1,8})?(:[a-zA-Z0-9._-]{1,9})?") {
        if let Ok(reference) = text.parse::<Reference>() {
            let again: Reference = reference.to_string().parse().unwrap();
            prop_assert_eq!(&again, &reference);
            let short: Reference = reference.familiar().parse().unwrap();
            prop_assert_eq!(&short, &reference);
        }
    }
}
