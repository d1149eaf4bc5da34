//! Copies as objects of a store that speaks S3.

use std::io::Seek as _;
use std::path::Path;

use super::throttle::Throttled;
use super::{Done, Known};
use crate::failure::{Context as _, Failure};
use crate::logs::parcel::Parcel;
use crate::logs::policy::Shipping;
use crate::system::object_store::{ObjectStore, Put, Sums};

/// Stores copies in a bucket, below a prefix.
pub(super) fn store(
    (bucket, prefix): (&str, &str),
    shipping: &Shipping,
    parcels: &[Parcel],
    done: Done<'_>,
) -> Result<(), Failure> {
    let store = open(bucket, shipping)?;
    let object = |path: &Path| object(prefix, path.to_str().unwrap_or_default());
    for parcel in parcels {
        // The seal first; one that is there already stays.
        let seal = parcel.seal.as_slice();
        let sums = Sums::of(seal).with_context(|| "cannot read the seal".to_owned())?;
        if let Put::Refused(failure) = store.put(&object(&parcel.seal_path), &mut &*seal, &sums)? {
            done(parcel, Err(failure));
            continue;
        }
        let failed = || format!("cannot read {}", parcel.path.display());
        let sums = Sums::of(&parcel.file).with_context(failed)?;
        (&parcel.file).rewind().with_context(failed)?;
        let mut body = Throttled::new(&parcel.file, shipping.rate);
        let stored = match store.put(&object(&parcel.path), &mut body, &sums)? {
            Put::Stored => Ok(()),
            Put::Other => Err(parcel.differs(Path::new(&shipping.to.to_string()))),
            Put::Refused(failure) => Err(failure),
        };
        done(parcel, stored);
    }
    Ok(())
}

/// Looks for copies: see [`super::lengths`].
pub(super) fn lengths(
    (bucket, prefix): (&str, &str),
    shipping: &Shipping,
    copies: &[Known],
) -> Result<Vec<Option<u64>>, Failure> {
    let store = open(bucket, shipping)?;
    copies.iter().map(|copy| store.length(&object(prefix, &copy.path))).collect()
}

fn open(bucket: &str, shipping: &Shipping) -> Result<ObjectStore, Failure> {
    let account = shipping.key.as_deref().ok_or_else(|| Failure::new("the file with the account is not declared"))?;
    ObjectStore::open(bucket, account)
}

/// The name of the object of a file.
fn object(prefix: &str, path: &str) -> String {
    if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") }
}
