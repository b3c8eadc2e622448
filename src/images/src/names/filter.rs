//! `images --filter` and `image prune --filter`.

use super::{Error, Image, Images, pattern};
use crate::time::Time;
use rrt_oci::image::Reference;
use std::collections::BTreeMap;

/// What to list. Empty: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Without a tag, or only with one.
    pub dangling: Option<bool>,
    /// `key` or `key=value`, all of which the image must have.
    pub labels: Vec<(String, Option<String>)>,
    /// None of which it may have (`label!=`, of `prune`).
    pub without_labels: Vec<(String, Option<String>)>,
    /// Patterns for names, one of which must match.
    pub references: Vec<String>,
    /// Images than all of which it must be older.
    pub before: Vec<String>,
    /// Images than all of which it must be newer.
    pub since: Vec<String>,
    /// It must be made before.
    pub until: Option<Time>,
}

/// An image of a list.
#[derive(Clone, Debug)]
pub struct Listed<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its names with tags that a `reference` filter leaves.
    pub tags: Vec<&'a Reference>,
    /// Its names with digests that a `reference` filter leaves.
    pub digests: Vec<&'a Reference>,
}

impl Filters {
    /// Adds what follows one `--filter`: `name=value`.
    pub fn add(&mut self, text: &str, now: Time) -> Result<(), Error> {
        let invalid = |why: &str| Error::Filter(format!("invalid filter {text:?}: {why}"));
        let (name, value) =
            text.split_once('=').ok_or_else(|| invalid("bad format of filter (expected name=value)"))?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        let label = |value: &str| match value.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        match name.as_str() {
            "dangling" => match value.as_str() {
                "true" | "1" => self.dangling = Some(true),
                "false" | "0" => self.dangling = Some(false),
                _ => return Err(invalid("dangling is true or false")),
            },
            "label" => self.labels.push(label(&value)),
            "label!" => self.without_labels.push(label(&value)),
            "reference" => {
                pattern::matches(&value, "").ok_or_else(|| invalid("syntax error in pattern"))?;
                self.references.push(value);
            }
            "before" => self.before.push(value),
            "since" => self.since.push(value),
            "until" => {
                let until = Time::parse_until(&value, now);
                self.until = Some(until.ok_or_else(|| invalid("until is a date, a time, or how long ago (24h)"))?);
            }
            _ => return Err(invalid("the filters are dangling, label, reference, before, since and until")),
        }
        Ok(())
    }

    /// Does any filter look at labels, which are read from each image's configuration?
    pub fn need_labels(&self) -> bool {
        !self.labels.is_empty() || !self.without_labels.is_empty()
    }

    /// Do the labels fit?
    pub fn take_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): &(String, Option<String>)| match (labels.get(key), value) {
            (Some(found), Some(wanted)) => found == wanted,
            (found, _) => found.is_some(),
        };
        self.labels.iter().all(has) && !self.without_labels.iter().any(has)
    }

    fn take_name(&self, name: &Reference) -> bool {
        let matches = |pattern: &String, name: &str| pattern::matches(pattern, name) == Some(true);
        let fits = |p: &String| matches(p, &name.familiar()) || matches(p, &name.familiar_name());
        self.references.is_empty() || self.references.iter().any(fits)
    }
}

impl Image {
    /// When it was made; `None` when its configuration does not say, or not in a way that can be read.
    pub fn made(&self) -> Option<Time> {
        self.created.as_deref().and_then(Time::parse)
    }
}

impl Images {
    /// The images that pass, newest first. `labels` says an image's, and is asked only when a filter needs it.
    pub fn list(
        &self,
        filters: &Filters,
        labels: &dyn Fn(&Image) -> BTreeMap<String, String>,
    ) -> Result<Vec<Listed<'_>>, Error> {
        let made = |text: &String| self.resolve(text).map(|image| image.made().unwrap_or_default());
        let before: Option<Time> = filters.before.iter().map(made).collect::<Result<Vec<_>, _>>()?.into_iter().min();
        let since: Option<Time> = filters.since.iter().map(made).collect::<Result<Vec<_>, _>>()?.into_iter().max();
        let mut listed = Vec::new();
        for image in self.iter() {
            let made = image.made().unwrap_or_default();
            let in_time = before.is_none_or(|before| made < before)
                && since.is_none_or(|since| made > since)
                && filters.until.is_none_or(|until| made < until);
            let names = filters.dangling.is_none_or(|dangling| dangling == image.is_dangling());
            if !in_time || !names || (filters.need_labels() && !filters.take_labels(&labels(image))) {
                continue;
            }
            let tags: Vec<_> = image.tags.keys().filter(|name| filters.take_name(name)).collect();
            let digests: Vec<_> = image.digests.iter().filter(|name| filters.take_name(name)).collect();
            if filters.references.is_empty() || !tags.is_empty() || !digests.is_empty() {
                listed.push((made, Listed { image, tags, digests }));
            }
        }
        listed.sort_by(|(a, _), (b, _)| b.cmp(a));
        Ok(listed.into_iter().map(|(_, listed)| listed).collect())
    }
}
