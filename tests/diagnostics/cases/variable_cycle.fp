hosts web {
  host "localhost" { connection = local }
}

vars {
  a = "{{ b }}/a"
  b = c
  c = [a]
}

play "web" on hosts.web {
  directory "/srv/{{ a }}"
}
