hosts web {
  host "localhost" { connection = local }
}

vars { a = true }

play "web" on hosts.web {
  if a {
    directory "/srv/a"
  } else {
    directory "/srv/b"
  }
}
