hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  handler "a" {
    directory "/srv/a"
  }
  handler "a" {
    directory "/srv/b"
  }
  directory "/srv/c" { notify = "a" }
}
