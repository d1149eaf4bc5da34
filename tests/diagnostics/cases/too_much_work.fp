hosts web {
  host "localhost" { connection = local }
}

vars {
  long = "x" * 1000000
  many = range(100000000)
  bomb = range(1000) | map("string") | join(",") | replace("1", "22222222222222222222") * 50
}

play "web" on hosts.web {
  directory "/srv/{{ long }}"
  directory "/srv/{{ many }}"
  directory "/srv/{{ bomb }}"
}
