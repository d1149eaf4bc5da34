//! Slots through the whole program: what a person sees before and after.

use super::run::Place;
use crate::common::picture;

/// A slot that shows one generation, and a play that would bring the next.
const PLAY: &str = r#"play "p" on hosts.all_of_them {
  slot "OUT/conf" {
    generation = "GENERATION"
    files      = {
      "httpd.conf"   = "Listen 80\nTimeout SECONDS\nKeepAlive On\n"
      "sites/a.conf" = "ServerName a.example\n"
      "sites/NAME"   = "ServerName b.example\n"
    }
    mode       = MODE
  }
  switch "OUT/conf" { generation = "GENERATION"  rollout = "p" }
  confirm "OUT/conf" { generation = "GENERATION"  rollout = "p" }
}"#;

fn play(generation: &str, seconds: &str, name: &str, mode: &str) -> String {
    PLAY.replace("GENERATION", generation).replace("SECONDS", seconds).replace("NAME", name).replace("MODE", mode)
}

#[test]
fn a_check_shows_what_a_switch_would_change() {
    let place = Place::new(&["h"], &play("00000000000a", "300", "b.conf", "0644"));
    place.play(&[]).expect(0);
    place.play(&[]).expect_nothing_done();
    let old = std::fs::read_to_string(place.path("play.fp")).unwrap();
    let new = old.replace("00000000000a", "00000000000b").replace("300", "60").replace("b.conf", "c.conf");
    place.write("play.fp", &new.replace("0644", "0640"));
    let before = picture(&place.out(""));
    let check = place.play(&["--check", "--diff"]).expect(0);
    assert_eq!(picture(&place.out("")), before);
    let lines = check.text.lines().map(|line| line.replace(place.out("").to_str().unwrap(), "OUT"));
    let lines: Vec<String> = lines.skip_while(|line| !line.contains("would")).collect();
    let end = lines.iter().position(String::is_empty).unwrap_or(lines.len());
    insta::assert_snapshot!(lines[..end].join("\n"));
    place.play(&[]).expect(0);
    place.play(&[]).expect_nothing_done();
    assert_eq!(place.read("conf/current/httpd.conf").unwrap(), "Listen 80\nTimeout 60\nKeepAlive On\n");
}
