//! The name in front of a line: short where there is one pod, with the pod's name where there are several, all of one
//! width.

/// Namespace and name.
pub(crate) type PodKey = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Labels {
    pods: Vec<(PodKey, Vec<String>)>,
}

/// How one container is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Padded to the width of all labels.
    pub(crate) text: String,
    /// Its place among all containers, which chooses the colour.
    pub(crate) index: usize,
}

impl Labels {
    /// A pod's containers; said again when its manifest changes.
    pub(crate) fn set(&mut self, pod: PodKey, containers: Vec<String>) {
        match self.pods.iter_mut().find(|(known, _)| *known == pod) {
            Some((_, known)) => {
                // Who is known keeps the colour.
                known.extend(containers.into_iter().filter(|name| !known.contains(name)).collect::<Vec<_>>());
            }
            None => self.pods.push((pod, containers)),
        }
    }

    pub(crate) fn container(&self, pod: &PodKey, container: &str) -> Label {
        let all = self.pods.iter().flat_map(|(pod, names)| names.iter().map(move |name| (pod, name)));
        let width = all.clone().map(|(pod, name)| self.name(pod, name).chars().count()).max().unwrap_or(0);
        let index = all.clone().position(|(key, name)| key == pod && name == container);
        let name = self.name(pod, container);
        Label { text: format!("{name:width$}"), index: index.unwrap_or_else(|| all.count()) }
    }

    pub(crate) fn pod(&self, pod: &PodKey) -> String {
        if self.one_namespace() { format!("pod/{}", pod.1) } else { format!("pod/{}/{}", pod.0, pod.1) }
    }

    fn name(&self, pod: &PodKey, container: &str) -> String {
        match (self.pods.len() > 1, self.one_namespace()) {
            (false, _) => container.to_owned(),
            (true, true) => format!("{}/{container}", pod.1),
            (true, false) => format!("{}/{}/{container}", pod.0, pod.1),
        }
    }

    fn one_namespace(&self) -> bool {
        self.pods.windows(2).all(|pair| pair[0].0.0 == pair[1].0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> PodKey {
        (namespace.into(), name.into())
    }

    #[test]
    fn one_pod_shows_container_names_of_one_width() {
        let mut labels = Labels::default();
        let web = key("default", "web");
        labels.set(web.clone(), vec!["app".into(), "proxy".into()]);
        assert_eq!(labels.container(&web, "app"), Label { text: "app  ".into(), index: 0 });
        assert_eq!(labels.container(&web, "proxy"), Label { text: "proxy".into(), index: 1 });
        assert_eq!(labels.pod(&web), "pod/web");
    }

    #[test]
    fn several_pods_show_the_pod_and_several_namespaces_the_namespace() {
        let mut labels = Labels::default();
        let (web, db) = (key("default", "web"), key("default", "db"));
        labels.set(web.clone(), vec!["app".into()]);
        labels.set(db.clone(), vec!["server".into()]);
        assert_eq!(labels.container(&web, "app").text, "web/app  ");
        let other = key("test", "web");
        labels.set(other.clone(), vec!["app".into()]);
        assert_eq!(labels.container(&db, "server").text, "default/db/server");
        assert_eq!(labels.pod(&other), "pod/test/web");
    }

    #[test]
    fn a_changed_manifest_keeps_the_colours() {
        let mut labels = Labels::default();
        let web = key("default", "web");
        labels.set(web.clone(), vec!["a".into(), "b".into()]);
        labels.set(web.clone(), vec!["b".into(), "c".into()]);
        assert_eq!(labels.container(&web, "b").index, 1);
        assert_eq!(labels.container(&web, "c").index, 2);
    }
}
