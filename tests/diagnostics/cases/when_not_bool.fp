hosts web {
  host "localhost" { connection = local }
}

vars {
  number = 3
  words  = "false"
}

play "web" on hosts.web {
  when number {
    directory "/srv/a"
  }
  directory "/srv/b" { when = words }
  when number == 3 and words {
    directory "/srv/c"
  }
}
