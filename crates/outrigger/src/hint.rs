//! What a person can do about a pod that does not come up.

/// The hint while a person watches: what a container said last is on the screen already.
pub(crate) fn of_waiting(reason: &str, message: &str) -> Option<&'static str> {
    of_failure(reason, message).filter(|hint| !hint.contains("POD"))
}

/// By the reason Kubernetes has for it, and words of the message where one reason has several causes.
pub(crate) fn of_failure(reason: &str, message: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| message.to_ascii_lowercase().contains(word));
    Some(match reason {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable"
            if says(&["unauthorized", "denied", "401", "403"]) =>
        {
            "log in to the registry (docker login writes the file that is read here), or check the image's name"
        }
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable"
            if says(&["not found", "manifest unknown", "404"]) =>
        {
            "check the image's name and tag"
        }
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" => {
            "without a registry in reach use --offline, or bring the image: outrigger image import FILE"
        }
        "ErrImageNeverPull" if says(&["built-in image"]) => {
            "build the sidecars, they are found beside the engine: cargo build --release -p sidecar-logs -p sidecar-proxy"
        }
        "ErrImageNeverPull" => "bring the image: outrigger image import FILE or outrigger image pull IMAGE",
        "InvalidImageName" => "image names are lower case: [REGISTRY/]NAME[:TAG]",
        "CreateContainerConfigError" => {
            "ConfigMaps and Secrets that a pod needs must be in the same command: run -f pod.yaml -f config.yaml"
        }
        "FailedMount" if says(&["configmap", "secret", "references non-existent"]) => {
            "ConfigMaps and Secrets that a pod needs must be in the same command: run -f pod.yaml -f config.yaml"
        }
        "FailedMount" => "check the volume's source on this machine",
        "FailedCreatePodSandBox" if says(&["hostport", "host port", "in use"]) => {
            "another process or pod has the port: choose another hostPort, or stop it"
        }
        "FailedCreatePodSandBox" => "outrigger cleanup removes what a crash left behind",
        "CrashLoopBackOff" | "Error" | "OOMKilled" => "outrigger logs POD -c CONTAINER shows its last words",
        "RunContainerError" | "StartError" => "check the command: it must be a program in the image",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_may_have_several_causes() {
        assert!(
            of_failure("ErrImagePull", "dial tcp: connection refused").is_some_and(|hint| hint.contains("--offline"))
        );
        assert!(of_failure("ErrImagePull", "401 Unauthorized").is_some_and(|hint| hint.contains("log in")));
        assert!(
            of_failure("FailedMount", "configmap \"x\" not found").is_some_and(|hint| hint.contains("-f config.yaml"))
        );
        let missing = "the program `/x/outrigger-logs` of this built-in image is not installed beside the engine";
        assert!(of_failure("ErrImageNeverPull", missing).is_some_and(|hint| hint.contains("cargo build")));
        assert_eq!(of_failure("Strange", ""), None);
    }
}
