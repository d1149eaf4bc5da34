role web_node(a: int) {
  directory "/srv/{{ a }}"
}
