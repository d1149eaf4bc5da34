vars {
  release = 1
  folder  = "/srv/{{ release }}"
}

role page(name: string, release: int = 0) {
  file "{{ folder }}/{{ name }}" { content = "{{ release }}\n" }
}

network "lan" {
  subnet = 10.0.0.0/24
  pool   = 10.0.0.10 - 10.0.0.20
}

nodes web {
  count   = 3
  on      = hosts.docker
  network = "lan"
  name    = "web{{ node.address | octets(4) }}"
  vars { release = 7 }
}

play "pages" on nodes.web {
  page { name = "index.html" }
}
