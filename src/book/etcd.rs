//! The book in etcd: any number of controllers. One transaction changes a spot's key and its owner's key, or none.
//!
//! What ends by itself hangs on a lease, so etcd itself takes both keys away together. Sources: etcd's API guarantees and
//! `rpc.proto` of 3.4, whose JSON gateway this speaks: no gRPC stack is needed.

use std::sync::Mutex;

use serde_json::{Value as Json, json};

use super::gateway::{Answer, Gateway, bytes, coded, number};
use super::{
    Commit, Entry, Everything, FORMAT, OwnerKey, Spot, Store, Write, decode, encode, given_away, new_id, now,
    other_format,
};
use crate::failure::{Failure, FailureKind};

/// The most reads of one transaction: etcd takes 128.
const MOST_READS: usize = 100;

/// How many keys are read at once when all are.
const PAGE: usize = 500;

/// A book in etcd.
pub struct EtcdStore {
    gateway: Gateway,
    prefix: String,
    /// The store's name, once it is known: each write says that it means this store.
    id: Mutex<Option<String>>,
}

impl EtcdStore {
    /// The book below `prefix` of the cluster whose members these are; nothing is asked yet.
    ///
    /// # Errors
    /// No endpoint, or one that is no URL.
    pub fn new(endpoints: &[String], prefix: &str) -> Result<Self, Failure> {
        let prefix = format!("/{}", prefix.trim_matches('/'));
        Ok(Self { gateway: Gateway::new(endpoints)?, prefix, id: Mutex::default() })
    }

    fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.prefix)
    }

    fn spot_key(&self, spot: &Spot) -> String {
        self.key(&format!("spots/{}", spot.key()))
    }

    fn owner_key(&self, owner: &OwnerKey) -> String {
        self.key(&format!("owners/{}", owner.key()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.id.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A transaction that only reads: everything of one instant.
    fn read(&self, ranges: Vec<Json>) -> Result<Vec<Vec<Json>>, Failure> {
        let ops: Vec<Json> = ranges.into_iter().map(|range| json!({ "request_range": range })).collect();
        let answer = self.gateway.ask("/v3/kv/txn", &json!({ "success": ops }))?.json;
        Ok(kvs(&answer))
    }

    fn entry(&self, kv: &Json) -> Result<Entry, Failure> {
        Ok(Entry { record: decode(&bytes(kv, "value"), &self.place())?, revision: number(kv, "mod_revision") })
    }

    /// The store's name, made by whoever comes first.
    fn ensure_id(&self) -> Result<String, Failure> {
        if let Some(id) = &*self.known() {
            return Ok(id.clone());
        }
        let fresh = new_id()?;
        let (id, format) = (self.key("id"), self.key("format"));
        let question = json!({
            "compare": [{ "key": coded(&id), "target": "CREATE", "create_revision": "0" }],
            "success": [
                { "request_put": { "key": coded(&id), "value": coded(&fresh) } },
                { "request_put": { "key": coded(&format), "value": coded(FORMAT.to_string()) } },
            ],
        });
        self.gateway.ask("/v3/kv/txn", &question)?;
        self.ask_id()?.ok_or_else(|| self.gone())
    }

    fn ask_id(&self) -> Result<Option<String>, Failure> {
        let range = |key: &str| json!({ "key": coded(self.key(key)) });
        let found = self.read(vec![range("id"), range("format")])?;
        let text = |at: usize| {
            let kv = found.get(at)?.first()?;
            String::from_utf8(bytes(kv, "value")).ok()
        };
        let Some(id) = text(0) else { return Ok(None) };
        let format = text(1).unwrap_or_default();
        if format != FORMAT.to_string() {
            return Err(other_format(&self.place(), &format));
        }
        *self.known() = Some(id.clone());
        Ok(Some(id))
    }

    fn gone(&self) -> Failure {
        Failure::new(format!("the address book at {} is not the one that this run began with", self.place()))
            .hint("was etcd restored or emptied meanwhile? Look at `fanli ip list` before the next run")
    }

    /// A lease that ends at that time, in seconds since 1970.
    fn lease(&self, until: u64) -> Result<String, Failure> {
        let ttl = until.saturating_sub(now()).max(1);
        let answer = self.gateway.ask("/v3/lease/grant", &json!({ "TTL": ttl.to_string() }))?.json;
        let id = answer.get("ID").and_then(Json::as_str).map(str::to_owned);
        id.ok_or_else(|| Failure::of(FailureKind::Internal, "etcd grants a lease without a number"))
    }

    fn question(&self, writes: &[Write], id: &str, lease: Option<&str>) -> Result<Json, Failure> {
        let store = coded(self.key("id"));
        let mut compare = vec![json!({ "key": store, "target": "VALUE", "value": coded(id) })];
        let mut success = Vec::new();
        let given_away = given_away(writes);
        let heirs: Vec<OwnerKey> = writes.iter().filter_map(Write::heir).collect();
        let new = |key: &str| json!({ "key": key, "target": "CREATE", "create_revision": "0" });
        for write in writes {
            let key = coded(self.spot_key(&write.spot));
            let (leads, heir) = (coded(write.spot.key()), write.heir());
            let before = write.owner.as_ref().filter(|_| write.expect > 0);
            if write.expect == 0 {
                compare.push(new(&key));
            } else {
                compare.push(json!({ "key": key, "target": "MOD", "mod_revision": write.expect.to_string() }));
                let owner = before.map(|owner| coded(self.owner_key(owner)));
                compare.extend(owner.map(|key| json!({ "key": key, "target": "VALUE", "value": leads })));
            }
            if let Some(heir) = heir.as_ref().filter(|heir| before != Some(heir) && !given_away(heir)) {
                compare.push(new(&coded(self.owner_key(heir))));
            }
            // A key may stand once among what is done: who gives one away and has another has it put alone.
            if let Some(owner) = before.filter(|owner| !heirs.contains(owner)) {
                success.push(json!({ "request_delete_range": { "key": coded(self.owner_key(owner)) } }));
            }
            let Some(record) = &write.record else {
                success.push(json!({ "request_delete_range": { "key": key } }));
                continue;
            };
            let lease = record.state.until().and(lease).unwrap_or("0");
            let value = coded(encode(record)?);
            success.push(json!({ "request_put": { "key": key, "value": value, "lease": lease } }));
            let owner = heir.map(|heir| coded(self.owner_key(&heir)));
            success.extend(owner.map(|key| json!({ "request_put": { "key": key, "value": leads, "lease": lease } })));
        }
        let failure = json!([{ "request_range": { "key": store } }]);
        Ok(json!({ "compare": compare, "success": success, "failure": failure }))
    }

    /// Whether what the writes want is there already: an answer that was lost may have told of it.
    fn done_before(&self, writes: &[Write]) -> Result<Option<u64>, Failure> {
        let spots: Vec<Spot> = writes.iter().map(|write| write.spot.clone()).collect();
        let there = self.of_spots(&spots)?;
        let same = writes
            .iter()
            .zip(&there)
            .all(|(write, there)| write.record.as_ref() == there.as_ref().map(|there| &there.record));
        let revision = there.iter().flatten().map(|entry| entry.revision).max();
        Ok(same.then_some(revision.unwrap_or(1)))
    }
}

/// The keys and values of each range of a transaction's answer.
fn kvs(answer: &Json) -> Vec<Vec<Json>> {
    let list = |json: &Json, field: &str| json.get(field).and_then(Json::as_array).cloned().unwrap_or_default();
    let range = |response: &Json| response.get("response_range").map(|range| list(range, "kvs")).unwrap_or_default();
    list(answer, "responses").iter().map(range).collect()
}

impl Store for EtcdStore {
    fn id(&self) -> Result<Option<String>, Failure> {
        let known = self.known().clone();
        if known.is_some() { Ok(known) } else { self.ask_id() }
    }

    fn of_owners(&self, owners: &[OwnerKey]) -> Result<Vec<Option<Entry>>, Failure> {
        let mut spots = Vec::new();
        for some in owners.chunks(MOST_READS) {
            let ranges = some.iter().map(|owner| json!({ "key": coded(self.owner_key(owner)) })).collect();
            let found = self.read(ranges)?;
            let spot = |kvs: &Vec<Json>| Spot::of_key(std::str::from_utf8(&bytes(kvs.first()?, "value")).ok()?);
            spots.extend(found.iter().map(spot));
        }
        let held: Vec<Spot> = spots.iter().flatten().cloned().collect();
        let mut entries = self.of_spots(&held)?.into_iter();
        let mut found = Vec::new();
        for (owner, spot) in owners.iter().zip(spots) {
            let entry = spot.and_then(|_| entries.next().flatten());
            // It may have gone to another one between the two questions.
            found.push(entry.filter(|entry| entry.record.owner.as_ref() == Some(&owner.owner)));
        }
        Ok(found)
    }

    fn of_spots(&self, spots: &[Spot]) -> Result<Vec<Option<Entry>>, Failure> {
        let mut entries = Vec::new();
        for some in spots.chunks(MOST_READS) {
            let ranges = some.iter().map(|spot| json!({ "key": coded(self.spot_key(spot)) })).collect();
            for kvs in self.read(ranges)? {
                entries.push(kvs.first().map(|kv| self.entry(kv)).transpose()?);
            }
        }
        Ok(entries)
    }

    fn taken(&self, from: &Spot, to: &Spot, most: usize) -> Result<Vec<Spot>, Failure> {
        let question = json!({
            "key": coded(self.spot_key(from)),
            // The key after the last one.
            "range_end": coded(format!("{}\0", self.spot_key(to))),
            "limit": most.to_string(),
            "keys_only": true,
        });
        let answer = self.gateway.ask("/v3/kv/range", &question)?.json;
        let start = self.key("spots/");
        let spot = |kv: &Json| Spot::of_key(String::from_utf8(bytes(kv, "key")).ok()?.strip_prefix(&start)?);
        Ok(answer.get("kvs").and_then(Json::as_array).into_iter().flatten().filter_map(spot).collect())
    }

    fn all(&self) -> Result<Everything, Failure> {
        // In pages, all of one revision: whatever changes meanwhile is not seen, and no answer grows without a bound.
        let (mut revision, mut found) = (0, [Vec::new(), Vec::new()]);
        for (name, kvs) in ["spots", "owners"].into_iter().zip(&mut found) {
            // `0` comes after `/`.
            let (mut from, end) = (self.key(&format!("{name}/")).into_bytes(), coded(self.key(&format!("{name}0"))));
            loop {
                let question = json!({
                    "key": coded(&from), "range_end": end, "limit": PAGE.to_string(), "revision": revision.to_string(),
                });
                let answer = self.gateway.ask("/v3/kv/range", &question)?.json;
                if revision == 0 {
                    revision = answer.get("header").map_or(0, |header| number(header, "revision"));
                }
                let page = answer.get("kvs").and_then(Json::as_array).cloned().unwrap_or_default();
                let Some(last) = page.last().filter(|_| page.len() >= PAGE).map(|kv| bytes(kv, "key")) else {
                    kvs.extend(page);
                    break;
                };
                // The key after the last one.
                from = [&last[..], b"\0"].concat();
                kvs.extend(page);
            }
        }
        let [spots, owners] = found;
        let entries = spots.iter().map(|kv| self.entry(kv)).collect::<Result<_, _>>()?;
        let start = self.key("owners/");
        let owner = |kv: &Json| {
            let key = String::from_utf8(bytes(kv, "key")).ok()?.strip_prefix(&start)?.to_owned();
            Some((key, Spot::of_key(std::str::from_utf8(&bytes(kv, "value")).ok()?)?))
        };
        Ok(Everything { entries, owners: owners.iter().filter_map(owner).collect() })
    }

    fn commit(&self, writes: &[Write]) -> Result<Commit, Failure> {
        let id = self.ensure_id()?;
        let until = writes.iter().filter_map(|write| write.record.as_ref()?.state.until()).max();
        let mut perhaps_before = false;
        // A lease may end before it is used when etcd stood still in between.
        for _ in 0..3 {
            let lease = until.map(|until| self.lease(until)).transpose()?;
            let answer = self.gateway.ask("/v3/kv/txn", &self.question(writes, &id, lease.as_deref())?);
            let Answer { json, perhaps_before: lost } = match answer {
                Err(failure) if failure.to_string().contains("requested lease not found") => {
                    perhaps_before = true;
                    continue;
                }
                answer => answer?,
            };
            if json.get("succeeded").and_then(Json::as_bool).unwrap_or(false) {
                let header = json.get("header").cloned().unwrap_or_default();
                return Ok(Commit::Done(number(&header, "revision")));
            }
            let found = kvs(&json);
            let stands = found.first().and_then(|kvs| kvs.first()).map(|kv| bytes(kv, "value"));
            if stands.as_deref() != Some(id.as_bytes()) {
                return Err(self.gone());
            }
            if (perhaps_before || lost)
                && let Some(revision) = self.done_before(writes)?
            {
                return Ok(Commit::Done(revision));
            }
            return Ok(Commit::Conflict);
        }
        Err(Failure::new(format!("etcd at {} ends leases before they are used", self.gateway.names())))
    }

    fn revision(&self) -> Result<u64, Failure> {
        let answer = self.gateway.ask("/v3/kv/range", &json!({ "key": coded(self.key("id")) }))?.json;
        Ok(answer.get("header").map_or(0, |header| number(header, "revision")))
    }

    fn fact(&self, name: &str) -> Result<Option<String>, Failure> {
        let found = self.read(vec![json!({ "key": coded(self.key(&format!("facts/{name}"))) })])?;
        Ok(found.first().and_then(|kvs| kvs.first()).and_then(|kv| String::from_utf8(bytes(kv, "value")).ok()))
    }

    fn set_fact(&self, name: &str, text: Option<&str>) -> Result<(), Failure> {
        let (id, key) = (self.ensure_id()?, coded(self.key(&format!("facts/{name}"))));
        let question = json!({
            "compare": [{ "key": coded(self.key("id")), "target": "VALUE", "value": coded(id) }],
            "success": [match text {
                Some(text) => json!({ "request_put": { "key": key, "value": coded(text) } }),
                None => json!({ "request_delete_range": { "key": key } }),
            }],
        });
        let answer = self.gateway.ask("/v3/kv/txn", &question)?.json;
        let done = answer.get("succeeded").and_then(Json::as_bool).unwrap_or(false);
        if done { Ok(()) } else { Err(self.gone()) }
    }

    fn place(&self) -> String {
        format!("etcd {} ({})", self.prefix, self.gateway.names())
    }
}
