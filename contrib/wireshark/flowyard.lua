-- What Flowyard knows of a packet, as fields to see, filter and colour by: flowyard.ring == 2.
--
-- `flowyard attach -w` and the extcap interfaces write it into each packet's comment; this takes it apart. Copy it to
-- Wireshark's folder of personal plug-ins, or have `flowyard extcap --install` do so.

local flowyard = Proto("flowyard", "Flowyard")

local fields = {
  ring = ProtoField.uint16("flowyard.ring", "Ring"),
  hash = ProtoField.uint32("flowyard.hash", "Hash", base.HEX),
  port = ProtoField.uint16("flowyard.port", "Port"),
  queue = ProtoField.uint16("flowyard.queue", "Queue"),
  depth = ProtoField.uint8("flowyard.depth", "IP headers"),
  tunnel = ProtoField.uint32("flowyard.tunnel", "Tunnel identifier"),
  tunnel_kind = ProtoField.uint8("flowyard.tunnel_kind", "Tunnel kind"),
  vlan = ProtoField.uint16("flowyard.vlan", "VLAN"),
  user = ProtoField.uint64("flowyard.user", "User's mark", base.HEX),
  fragment = ProtoField.string("flowyard.fragment", "Fragment"),
  fallback = ProtoField.bool("flowyard.fallback", "First fragment not seen"),
  checksum_partial = ProtoField.bool("flowyard.checksum_partial", "Checksum not yet filled in"),
  gso = ProtoField.bool("flowyard.gso", "Several segments in one frame"),
  vlan_stripped = ProtoField.bool("flowyard.vlan_stripped", "VLAN tag taken off by the card"),
}
for _, field in pairs(fields) do
  table.insert(flowyard.fields, field)
end

local flags = { fallback = true, checksum_partial = true, gso = true, vlan_stripped = true }
local comments = Field.new("frame.comment")

-- A number as the comment has it. 64-bit ones are more than Lua's numbers hold.
local function value(name, text)
  if name == "fragment" then
    return text
  elseif name == "hash" then
    return tonumber(text, 16)
  elseif name == "user" then
    return UInt64.fromhex((text:gsub("^0x", "")))
  elseif flags[name] then
    return text == "1"
  end
  return tonumber(text)
end

function flowyard.dissector(buffer, packet, tree)
  for _, comment in ipairs({ comments() }) do
    local said = tostring(comment.value):match("^flowyard: (.*)")
    if said then
      local branch = tree:add(flowyard, buffer(0, 0))
      for name, text in said:gmatch("([%w_]+)=(%S+)") do
        if fields[name] then
          branch:add(fields[name], value(name, text)):set_generated()
        end
      end
    end
  end
end

register_postdissector(flowyard)
