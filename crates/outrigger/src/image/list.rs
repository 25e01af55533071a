//! The table of images, with docker's columns.

use pod_image::{Image, Reference};

use crate::table::{render, size};

pub(crate) fn table(images: &[Image]) -> String {
    let mut rows = Vec::new();
    for image in images {
        for name in &image.names {
            let (repository, tag) = split(name);
            rows.push(vec![repository, tag, short_id(&image.id), size(image.size)]);
        }
    }
    render(&["REPOSITORY", "TAG", "IMAGE ID", "SIZE"], &rows)
}

/// One name a line.
pub(crate) fn names(images: &[Image]) -> String {
    images.iter().flat_map(|image| &image.names).map(|name| format!("{name}\n")).collect()
}

/// Twelve digits, as docker shows ids.
pub(crate) fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}

/// `alpine` and `latest` of `docker.io/library/alpine:latest`.
fn split(name: &str) -> (String, String) {
    let familiar = name.parse().map_or_else(|_| name.to_owned(), |reference: Reference| reference.familiar());
    if let Some((repository, _)) = familiar.split_once('@') {
        return (repository.to_owned(), "<none>".into());
    }
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (familiar, "latest".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_as_docker_shows_them() {
        assert_eq!(split("docker.io/library/alpine:latest"), ("alpine".into(), "latest".into()));
        assert_eq!(split("docker.io/library/alpine:3.20"), ("alpine".into(), "3.20".into()));
        assert_eq!(split("localhost:5000/tool:1"), ("localhost:5000/tool".into(), "1".into()));
        let digest = format!("docker.io/library/alpine@sha256:{}", "a".repeat(64));
        assert_eq!(split(&digest), ("alpine".into(), "<none>".into()));
        assert_eq!(short_id(&format!("sha256:{}", "b".repeat(64))), "b".repeat(12));
    }
}
