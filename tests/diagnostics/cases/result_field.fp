hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  directory "/srv/a" as made
  when made.chnged {
    directory "/srv/b"
  }
}
