//! Removing, by Docker's rules for `rmi` and `image prune`.

use super::{Error, Image, Images};
use crate::time::Time;
use rrt_content::Hasher;
use rrt_oci::image::{Digest, Reference};
use std::collections::HashSet;

/// What was removed, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name.
    Untagged(Reference),
    /// An image's id, or the chain id of a layer that no other image has.
    Deleted(Digest),
}

impl std::fmt::Display for Removed {
    /// As `docker rmi` prints it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Removed::Untagged(name) => write!(f, "Untagged: {}", name.familiar()),
            Removed::Deleted(digest) => write!(f, "Deleted: {digest}"),
        }
    }
}

/// A container that uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The container's id.
    pub id: String,
    /// Its process runs (or is paused).
    pub running: bool,
}

/// Says which containers use an image.
pub type UsedBy<'a> = &'a dyn Fn(&Image) -> Vec<User>;

/// What stands against deleting.
struct Conflict {
    error: Error,
    by_container: bool,
}

impl Images {
    /// `rmi`. A name is taken away; the image goes with the last one. An id removes the image when all its names are of one repository
    /// with one tag at most, or by force. A running container's image stays, by force too; a stopped one's goes by force.
    pub fn remove(&mut self, text: &str, force: bool, used_by: UsedBy<'_>) -> Result<Vec<Removed>, Error> {
        let image = self.resolve(text)?.clone();
        let mut removed = Vec::new();
        let users = used_by(&image);
        let name = name_of(text, &image);
        if let Some(name) = &name {
            if let (false, true, Some(user)) = (force, is_single(&image), users.first()) {
                let (container, id) = (short(&user.id), image.id.short());
                return Err(Error::Conflict(format!(
                    "conflict: unable to remove repository reference {text:?} (must force) - container {container} is using its referenced image {id}"
                )));
            }
            self.remove_name(&image.id, name, &mut removed);
        } else if is_single(&image) {
            if let Some(conflict) = conflict(&image, &users, force, false) {
                return Err(conflict.error);
            }
            self.remove_all_names(&image.id, &mut removed);
        }
        let Some(image) = self.get(&image.id).cloned() else { return Ok(removed) };
        if name.is_some() && !image.references().is_empty() {
            return Ok(removed);
        }
        match conflict(&image, &users, force, true) {
            // Its last name went, and it stays for its container.
            Some(conflict) if name.is_some() && conflict.by_container => Ok(removed),
            Some(conflict) => Err(conflict.error),
            None => {
                self.delete(&image.id, &mut removed);
                Ok(removed)
            }
        }
    }

    /// `image prune`: the images without a tag, or with `all` every one, that no container uses, were made before `until` and that
    /// `matches` wants.
    pub fn prune(
        &mut self,
        all: bool,
        until: Option<Time>,
        matches: &dyn Fn(&Image) -> bool,
        used_by: UsedBy<'_>,
    ) -> Vec<Removed> {
        let young = |image: &Image| until.is_some_and(|until| image.made().is_none_or(|made| made > until));
        let wanted = |image: &&Image| (all || image.is_dangling()) && !young(image) && matches(image);
        let mut removed = Vec::new();
        for image in self.iter().filter(wanted).cloned().collect::<Vec<_>>() {
            if used_by(&image).is_empty() {
                self.delete(&image.id, &mut removed);
            }
        }
        removed
    }

    /// With the last tag of a repository its digests go too.
    fn remove_name(&mut self, id: &Digest, name: &Reference, removed: &mut Vec<Removed>) {
        self.untag(name);
        removed.push(Removed::Untagged(name.clone()));
        let Some(image) = self.0.get_mut(id) else { return };
        let same = |r: &Reference| (r.registry(), r.repository()) == (name.registry(), name.repository());
        if name.digest().is_none() && !image.tags.keys().any(same) {
            let gone: Vec<Reference> = image.digests.extract_if(.., |digest| same(digest)).collect();
            removed.extend(gone.into_iter().map(Removed::Untagged));
        }
    }

    fn remove_all_names(&mut self, id: &Digest, removed: &mut Vec<Removed>) {
        let Some(image) = self.0.get_mut(id) else { return };
        removed.extend(image.references().into_iter().map(Removed::Untagged));
        image.tags.clear();
        image.digests.clear();
    }

    fn delete(&mut self, id: &Digest, removed: &mut Vec<Removed>) {
        self.remove_all_names(id, removed);
        let Some(image) = self.0.remove(id) else { return };
        removed.push(Removed::Deleted(id.clone()));
        let others: HashSet<Digest> = self.iter().flat_map(chain_ids).collect();
        let gone = chain_ids(&image).into_iter().rev().filter(|chain| !others.contains(chain));
        removed.extend(gone.map(Removed::Deleted));
    }
}

/// The name that `text` is of the image; `None`: it is an id.
fn name_of(text: &str, image: &Image) -> Option<Reference> {
    let name = text.parse::<Reference>().ok()?.with_default_tag();
    let name = name.digest().map(|digest| name.with_digest(digest.clone())).unwrap_or(name);
    (image.tags.contains_key(&name) || image.digests.contains(&name)).then_some(name)
}

/// All names are of one repository, with one tag at most.
fn is_single(image: &Image) -> bool {
    let repositories: HashSet<(&str, &str)> =
        image.tags.keys().chain(&image.digests).map(|r| (r.registry(), r.repository())).collect();
    repositories.len() == 1 && image.tags.len() <= 1
}

fn conflict(image: &Image, users: &[User], force: bool, names_count: bool) -> Option<Conflict> {
    let id = image.id.short();
    let by = |what: String, by_container| {
        Some(Conflict { error: Error::Conflict(format!("conflict: unable to delete {id} {what}")), by_container })
    };
    if let Some(user) = users.iter().find(|user| user.running) {
        let container = short(&user.id);
        return by(format!("(cannot be forced) - image is being used by running container {container}"), true);
    }
    match users.first() {
        _ if force => None,
        Some(user) => {
            let container = short(&user.id);
            by(format!("(must be forced) - image is being used by stopped container {container}"), true)
        }
        None if names_count && image.references().len() > 1 => {
            by("(must be forced) - image is referenced in multiple repositories".to_owned(), false)
        }
        None => None,
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The chain id of each of an image's layers, lowest first (image-spec, config.md, "Layer ChainID").
fn chain_ids(image: &Image) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        chain.push(match chain.last() {
            None => layer.diff_id.clone(),
            Some(below) => Hasher::digest_of("sha256", format!("{below} {}", layer.diff_id).as_bytes()),
        });
    }
    chain
}
