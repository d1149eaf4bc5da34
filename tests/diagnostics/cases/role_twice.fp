hosts web {
  host "localhost" { connection = local }
}

role a() {
  directory "/srv/a"
}

role a() {
  directory "/srv/b"
}

role file() {
  directory "/srv/c"
}

play "web" on hosts.web {
  directory "/srv/a"
}
