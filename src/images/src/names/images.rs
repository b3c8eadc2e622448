//! All images of a root, as data: what a name means, and what adding and tagging change.

use super::{Error, Image};
use rrt_oci::image::{Digest, InvalidReference, Reference};
use std::collections::{BTreeMap, HashMap, HashSet};

/// All images of a root, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images(pub(super) BTreeMap<Digest, Image>);

/// What the images take, for `system df`. Layers that several images have count once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images.
    pub count: usize,
    /// Those of them that a container uses.
    pub active: usize,
    /// Bytes of all unpacked layers.
    pub size: u64,
    /// Bytes of those that no active image has.
    pub reclaimable: u64,
}

impl Images {
    /// All, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.0.values()
    }

    /// The image with this id.
    pub fn get(&self, id: &Digest) -> Option<&Image> {
        self.0.get(id)
    }

    /// What a user means by `text`: an id (whole, or a beginning of it that only one image has; with or without `sha256:`), the digest
    /// of a manifest or index, or a reference (`latest` when it has neither tag nor digest). A name goes before a short id.
    pub fn resolve(&self, text: &str) -> Result<&Image, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if is_hex && hex.len() == 64 {
            let of = |i: &&Image| [&i.id, &i.manifest.digest, &i.target.digest].iter().any(|d| d.hex() == hex);
            let id: Option<Digest> = format!("sha256:{hex}").parse().ok();
            let found = id.and_then(|id| self.get(&id)).or_else(|| self.iter().find(of));
            return found.ok_or_else(|| Error::NoSuchImage(text.to_owned()));
        }
        let reference = text.parse::<Reference>().map(Reference::with_default_tag);
        if let Some(image) = reference.as_ref().ok().and_then(|reference| self.find(reference)) {
            return Ok(image);
        }
        let mut with_prefix = self.iter().filter(|image| is_hex && image.id.hex().starts_with(hex));
        match (with_prefix.next(), with_prefix.next()) {
            (Some(_), Some(_)) => Err(Error::AmbiguousId(text.to_owned())),
            (Some(image), None) => Ok(image),
            (None, _) => Err(match reference {
                Ok(reference) => Error::NoSuchImage(reference.familiar()),
                Err(_) if is_hex => Error::NoSuchImage(text.to_owned()),
                Err(invalid) => Error::Reference(invalid),
            }),
        }
    }

    /// The image of this name. By digest also an image of the repository whose manifest or index has it.
    pub fn find(&self, reference: &Reference) -> Option<&Image> {
        let Some(digest) = reference.digest() else {
            return self.iter().find(|image| image.tags.contains_key(reference));
        };
        let canonical = reference.with_digest(digest.clone());
        let same = |r: &Reference| (r.registry(), r.repository()) == (reference.registry(), reference.repository());
        self.iter().find(|image| image.digests.contains(&canonical)).or_else(|| {
            let has = |i: &&Image| i.manifest.digest == *digest || i.target.digest == *digest;
            self.iter().filter(has).find(|image| image.tags.keys().chain(&image.digests).any(same))
        })
    }

    /// Adds an image with its names, which other images lose. One that is there already keeps its names; its documents are then
    /// those of the new one.
    pub fn add(&mut self, mut image: Image) {
        for name in image.references() {
            self.untag(&name);
        }
        if let Some(known) = self.0.remove(&image.id) {
            image.tags.extend(known.tags);
            image.digests.extend(known.digests);
        }
        self.0.insert(image.id.clone(), image);
    }

    /// Gives an image another name, which another image then loses.
    pub fn tag(&mut self, id: &Digest, name: &Reference, now: i64) -> Result<(), Error> {
        let name = name.clone().with_default_tag();
        if name.digest().is_some() {
            return Err(Error::TagWithDigest);
        }
        if name.familiar_name() == "sha256" || name.familiar_name() == "sha512" {
            let why = "refusing to create an ambiguous tag using digest algorithm as name".to_owned();
            return Err(Error::Reference(InvalidReference { text: name.familiar(), why }));
        }
        if self.get(id).is_some_and(|image| image.tags.contains_key(&name)) {
            return Ok(());
        }
        if !self.0.contains_key(id) {
            return Err(Error::NoSuchImage(id.to_string()));
        }
        self.untag(&name);
        if let Some(image) = self.0.get_mut(id) {
            image.tags.insert(name, now);
        }
        Ok(())
    }

    /// Takes a name away; the image stays. Says whose it was.
    pub fn untag(&mut self, name: &Reference) -> Option<Digest> {
        let owner = self.0.values_mut().find(|i| i.tags.contains_key(name) || i.digests.contains(name))?;
        owner.tags.remove(name);
        owner.digests.remove(name);
        Some(owner.id.clone())
    }

    /// The blobs that must stay.
    pub fn roots(&self) -> HashSet<Digest> {
        self.iter().flat_map(Image::blobs).cloned().collect()
    }

    /// How many bytes of `image`'s layers other images have as well.
    pub fn shared_sizes(&self) -> HashMap<&Digest, u64> {
        let mut users: HashMap<&Digest, u32> = HashMap::new();
        for image in self.iter() {
            let distinct: HashSet<&Digest> = image.layers.iter().map(|layer| &layer.diff_id).collect();
            distinct.into_iter().for_each(|diff_id| *users.entry(diff_id).or_default() += 1);
        }
        let shared = |image: &Image| image.layers.iter().filter(|l| users[&l.diff_id] > 1).map(|l| l.unpacked).sum();
        self.iter().map(|image| (&image.id, shared(image))).collect()
    }

    /// For `system df`; `active` says whether a container uses the image.
    pub fn disk_usage(&self, active: impl Fn(&Image) -> bool) -> DiskUsage {
        let layers = |images: &mut dyn Iterator<Item = &Image>| -> u64 {
            let all: HashMap<Digest, u64> =
                images.flat_map(|image| &image.layers).map(|layer| (layer.diff_id.clone(), layer.unpacked)).collect();
            all.values().sum()
        };
        let used: Vec<&Image> = self.iter().filter(|image| active(image)).collect();
        let size = layers(&mut self.iter());
        let reclaimable = size - layers(&mut used.iter().copied());
        DiskUsage { count: self.0.len(), active: used.len(), size, reclaimable }
    }
}
