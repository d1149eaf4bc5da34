hosts web {
  host "localhost" { connection = local }
}

vars { a = true }

play "web" on hosts.web {
  when a && !a {
    directory "/srv/a"
  }
}
