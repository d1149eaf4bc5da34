//! The frames between controller and helper, fed with what a broken or hostile other side might send.

use fanli::failure::Failure;
use fanli::remote::codec::{Reader, encode, hello};
use fanli::remote::wire::{MAGIC, MOST_FRAME, MOST_NOISE, ToController, ToHelper};
use proptest::prelude::*;

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Reads a stream to its end: hello, then frames.
fn read(bytes: &[u8]) -> Result<Vec<ToHelper>, Failure> {
    block(async {
        let mut reader = Reader::new(bytes, &[]);
        reader.hello().await?;
        let mut messages = Vec::new();
        while let Some(message) = reader.next::<ToHelper>().await? {
            messages.push(message);
        }
        Ok(messages)
    })
}

fn messages() -> Vec<ToHelper> {
    let digest = fanli::value::Digest::of(b"x");
    vec![
        ToHelper::Plan { piece: vec![7; 100_000], last: true },
        ToHelper::Go { stage: 3, without: vec!["web1".to_owned()] },
        ToHelper::Skip { from: 4, to: 9 },
        ToHelper::Blob { digest, piece: Vec::new(), last: true },
        ToHelper::Ping,
        ToHelper::Stop,
    ]
}

fn stream() -> Vec<u8> {
    let mut bytes = hello();
    for message in messages() {
        bytes.extend(encode(&message).unwrap());
    }
    bytes
}

#[test]
fn messages_arrive_as_they_were_sent_behind_the_noise_of_login_scripts() {
    assert_eq!(read(&stream()).unwrap(), messages());
    let noisy = [b"Welcome to shop1!\nLast login: \x1b[1myesterday\x1b[0m\n\0".as_slice(), &stream()].concat();
    assert_eq!(read(&noisy).unwrap(), messages());
}

#[test]
fn a_stream_in_single_bytes_reads_the_same() {
    let bytes = stream();
    let (mut here, there) = tokio::io::duplex(1);
    let read = block(async move {
        let write = async {
            use tokio::io::AsyncWriteExt as _;
            here.write_all(&bytes).await.unwrap();
            drop(here);
        };
        let read = async {
            let mut reader = Reader::new(there, &[]);
            reader.hello().await.unwrap();
            let mut messages = Vec::new();
            while let Some(message) = reader.next::<ToHelper>().await.unwrap() {
                messages.push(message);
            }
            messages
        };
        tokio::join!(write, read).1
    });
    assert_eq!(read, messages());
}

#[test]
fn what_is_cut_anywhere_is_an_error_or_a_shorter_list_and_never_acted_on_in_part() {
    let bytes = stream();
    for cut in (0..bytes.len()).step_by(37) {
        match read(&bytes[..cut]) {
            Ok(some) => assert_eq!(some, messages()[..some.len()]),
            Err(failure) => assert!(!failure.message.is_empty()),
        }
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_allocated() {
    for length in [u32::MAX, u32::try_from(MOST_FRAME).unwrap() + 1] {
        let failure = read(&[hello(), length.to_le_bytes().to_vec()].concat()).unwrap_err();
        assert!(failure.message.contains("over the limit"), "{failure}");
    }
}

#[test]
fn endless_noise_another_version_and_silence_have_words_of_their_own() {
    let failure = read(&vec![b'x'; MOST_NOISE + 70_000]).unwrap_err();
    assert_eq!(failure.hint.as_deref(), Some("make the login scripts quiet"));
    let failure = read(&[MAGIC.as_slice(), &[9, 9]].concat()).unwrap_err();
    assert!(failure.message.contains("another version"), "{failure}");
    let marker = |bytes: &[u8]| block(Reader::new(bytes, &[]).marker(b"marker\n"));
    assert!(marker(b"welcome\nmarker\n").unwrap());
    let failure = marker(&vec![b'x'; MOST_NOISE + 70_000]).unwrap_err();
    assert_eq!(failure.hint.as_deref(), Some("make the login scripts quiet"));
    assert!(failure.to_string().len() < 1000, "{failure}");
    let failure = read(b"bash: fanli: Permission denied\n").unwrap_err();
    assert_eq!(failure.to_string(), "the stream ended before the helper's hello: bash: fanli: Permission denied");
}

proptest! {
    /// The seed of a failure is printed by proptest.
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = read(&[hello(), bytes.clone()].concat());
        let _ = block(async {
            let mut reader = Reader::new(bytes.as_slice(), &[]);
            reader.next::<ToController>().await
        });
    }

    #[test]
    fn no_flipped_byte_makes_the_reader_panic(at in 0usize..1000, byte in any::<u8>()) {
        let mut bytes = hello();
        for message in messages().into_iter().skip(1) {
            bytes.extend(encode(&message).unwrap());
        }
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = read(&bytes);
    }
}
