//! Which of an index's manifests is for a platform (image-index.md; the order of variants is containerd's).

use crate::error::{Error, Result};
use rrt_oci::image::{Descriptor, Index, Platform, Reference, media_type as kind};

/// The manifest that fits best: the platform itself, then what its machine runs, too (arm/v7 runs arm/v6, amd64/v3 runs amd64/v2).
pub fn choose(reference: &Reference, index: &Index, wanted: &Platform) -> Result<Descriptor> {
    let images: Vec<&Descriptor> = index.manifests.iter().filter(|entry| is_image(entry)).collect();
    for wanted in runs(wanted) {
        let fits = |entry: &&&Descriptor| entry.platform.as_ref().is_some_and(|platform| wanted.takes(platform));
        let exact =
            |entry: &&&Descriptor| entry.platform.as_ref().is_some_and(|p| plain_variant(p) == plain_variant(&wanted));
        let found = images.iter().filter(fits).find(exact).or_else(|| images.iter().find(fits));
        if let Some(found) = found {
            return Ok((*found).clone());
        }
    }
    // Some tools write an index of one image without saying what it is for.
    match images[..] {
        [only] if only.platform.is_none() => Ok(only.clone()),
        _ => Err(Error::NoPlatform {
            name: reference.familiar(),
            wanted: wanted.to_string(),
            available: available(&images),
        }),
    }
}

/// Not BuildKit's attestations, which have the platform unknown/unknown, and not what is no image.
fn is_image(entry: &Descriptor) -> bool {
    let kinds = [kind::OCI_MANIFEST, kind::DOCKER_MANIFEST, kind::OCI_INDEX, kind::DOCKER_LIST];
    let unknown = entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    kinds.contains(&entry.media_type.as_str()) && !unknown && entry.artifact_type.is_none()
}

fn available(images: &[&Descriptor]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in images.iter().take(64) {
        let name =
            entry.platform.as_ref().map_or_else(|| "a platform it does not name".to_owned(), Platform::to_string);
        let name = crate::url::shorten(&name);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.push("no platform at all".to_owned());
    }
    names
}

/// amd64/v1 and arm64/v8 are the same as without.
fn plain_variant(platform: &Platform) -> Option<&str> {
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("amd64", Some("v1")) | ("arm64", Some("v8")) => None,
        (_, variant) => variant,
    }
}

/// The platform, then those that run on its machine, best first.
fn runs(wanted: &Platform) -> Vec<Platform> {
    let variant = |variant: Option<&str>| Platform { variant: variant.map(str::to_owned), ..wanted.clone() };
    let lower: &[Option<&str>] = match (wanted.architecture.as_str(), wanted.variant.as_deref()) {
        ("arm", Some("v8")) => &[Some("v7"), Some("v6"), Some("v5")],
        ("arm", Some("v7")) => &[Some("v6"), Some("v5")],
        ("arm", Some("v6")) => &[Some("v5")],
        ("amd64", Some("v4")) => &[Some("v3"), Some("v2"), None],
        ("amd64", Some("v3")) => &[Some("v2"), None],
        ("amd64", Some("v2" | "v1")) => &[None],
        _ => &[],
    };
    std::iter::once(wanted.clone()).chain(lower.iter().map(|lower| variant(*lower))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rrt_oci::image::Digest;

    fn index(platforms: &[&str]) -> Index {
        let entries = platforms.iter().enumerate().map(|(at, platform)| {
            let digest: Digest = format!("sha256:{at:064x}").parse().unwrap();
            let mut entry = Descriptor::new(kind::OCI_MANIFEST, digest, 1);
            entry.platform = (!platform.is_empty()).then(|| match *platform {
                "unknown/unknown" => Platform { os: "unknown".to_owned(), ..Platform::host() },
                text => text.parse().unwrap(),
            });
            entry
        });
        Index {
            schema_version: 2,
            media_type: kind::OCI_INDEX.to_owned(),
            artifact_type: None,
            manifests: entries.collect(),
            subject: None,
            annotations: Default::default(),
        }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> std::result::Result<usize, String> {
        let reference: Reference = "busybox:1".parse().unwrap();
        let found = choose(&reference, &index(platforms), &wanted.parse().unwrap()).map_err(|e| e.to_string())?;
        Ok(usize::from_str_radix(found.digest.hex(), 16).unwrap())
    }

    #[test]
    fn the_best_fit_is_taken() {
        for (platforms, wanted, expected) in [
            (&["linux/arm64/v8", "linux/amd64"][..], "linux/amd64", 1),
            (&["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
            (&["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", 1),
            (&["linux/amd64"], "linux/amd64/v3", 0),
            (&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", 1),
            (&["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", 1),
            (&["linux/arm64"], "linux/arm64/v8", 0),
            (&["unknown/unknown", "linux/amd64"], "linux/amd64", 1),
            (&["", "unknown/unknown"], "linux/amd64", 0),
        ] {
            assert_eq!(chosen(platforms, wanted), Ok(expected), "{platforms:?} for {wanted}");
        }
    }

    #[test]
    fn what_is_there_is_listed() {
        let error =
            chosen(&["linux/amd64", "linux/arm/v7", "linux/amd64", "unknown/unknown"], "linux/arm64/v8").unwrap_err();
        assert_eq!(
            error,
            "no matching manifest for linux/arm64/v8 in the manifest list entries: busybox:1 is there for linux/amd64, linux/arm/v7"
        );
        assert!(chosen(&["linux/arm/v7"], "linux/arm/v6").is_err());
        assert!(chosen(&[], "linux/amd64").unwrap_err().contains("no platform at all"));
    }
}
