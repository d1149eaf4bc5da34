play "x" on hosts.all {
  directory "/srv" { mode: 0755 }
}
