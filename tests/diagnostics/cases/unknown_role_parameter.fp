hosts web {
  host "localhost" { connection = local }
}

role web_node(image: string) {
  directory "/srv/{{ image }}"
}

play "web" on hosts.web {
  web_node { imag = "a" }
}
