hosts web {
  host "localhost" { connection = local }
}

play "web" on hosts.web {
  for name in ["a", "b" {
    directory "/srv/{{ name }}"
  }
}
