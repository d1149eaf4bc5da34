hosts web {
  host "localhost" { connection = local }
}

vars { many = range(2000) }

play "web" on hosts.web {
  for a in many {
    for b in many {
      directory "/srv/{{ a }}/{{ b }}"
    }
  }
}
