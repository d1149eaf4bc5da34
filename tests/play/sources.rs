//! Files beside the playbook: what is kept of their permissions.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::run::Place;

#[test]
fn a_source_that_only_its_owner_may_read_is_no_open_file_on_a_host() {
    let play = r#"play "p" on hosts.all_of_them {
  file "OUT/key" { source = "site.key" }
  file "OUT/group" { source = "group.key" }
  file "OUT/open" { source = "site.key"  mode = 0644 }
  file "OUT/plain" { source = "plain.conf" }
  template "OUT/made" { source = "site.key" }
}"#;
    let place = Place::new(&["h"], play);
    for (name, mode) in [("site.key", 0o600), ("group.key", 0o440), ("plain.conf", 0o664)] {
        place.write(name, "x\n");
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // It was let open by an earlier run.
    fs::write(place.out("key"), "x\n").unwrap();
    place.play(&[]).expect(0);
    let mode = |name: &str| fs::metadata(place.out(name)).unwrap().mode() & 0o7777;
    let modes = ["key", "group", "open", "plain", "made"].map(mode);
    assert_eq!(modes.map(|mode| format!("{mode:o}")), ["600", "640", "644", "644", "600"]);
    place.play(&[]).expect_nothing_done();
}
