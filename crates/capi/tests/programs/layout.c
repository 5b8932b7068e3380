/* Prints what the header says, for comparison with the library's own structs. */
#include <flowyard.h>

#include <stdio.h>

#define SIZE(name, type) printf(name " %zu\n", sizeof(type))
#define AT(name, type, field) printf(name "." #field " %zu\n", offsetof(type, field))
#define NUMBER(name) printf(#name " %lld\n", (long long)FLOWYARD_##name)

int main(void)
{
    SIZE("options", struct flowyard_options);
    AT("options", struct flowyard_options, size);
    AT("options", struct flowyard_options, socket);
    AT("options", struct flowyard_options, program);
    AT("options", struct flowyard_options, flags);
    AT("options", struct flowyard_options, zero);
    AT("options", struct flowyard_options, patience_ns);
    SIZE("info", struct flowyard_info);
    AT("info", struct flowyard_info, size);
    AT("info", struct flowyard_info, yard);
    AT("info", struct flowyard_info, group);
    AT("info", struct flowyard_info, ring);
    AT("info", struct flowyard_info, rings);
    AT("info", struct flowyard_info, port_count);
    AT("info", struct flowyard_info, write);
    AT("info", struct flowyard_info, annotation_bytes);
    AT("info", struct flowyard_info, buffer_bytes);
    SIZE("segment", struct flowyard_segment);
    AT("segment", struct flowyard_segment, data);
    AT("segment", struct flowyard_segment, len);
    AT("segment", struct flowyard_segment, zero);
    SIZE("packet", struct flowyard_view);
    AT("packet", struct flowyard_view, data);
    AT("packet", struct flowyard_view, len);
    AT("packet", struct flowyard_view, total);
    AT("packet", struct flowyard_view, further);
    AT("packet", struct flowyard_view, further_count);
    AT("packet", struct flowyard_view, hash);
    AT("packet", struct flowyard_view, tag);
    AT("packet", struct flowyard_view, annotation);
    AT("packet", struct flowyard_view, annotation_len);
    AT("packet", struct flowyard_view, flags);
    AT("packet", struct flowyard_view, l3);
    AT("packet", struct flowyard_view, l4);
    AT("packet", struct flowyard_view, time_ns);
    AT("packet", struct flowyard_view, buffer);
    AT("packet", struct flowyard_view, port);
    AT("packet", struct flowyard_view, writable);
    AT("packet", struct flowyard_view, zero);
    NUMBER(ABI);
    NUMBER(WRITE);
    NUMBER(ERROR);
    NUMBER(NOTHING);
    NUMBER(PACKETS);
    NUMBER(ENDED);
    NUMBER(SPIN);
    NUMBER(YIELD);
    NUMBER(SLEEP);
    NUMBER(NOT_ENDED);
    NUMBER(IN_ORDER);
    NUMBER(LOST);
    NUMBER(SLOT_MORE);
    NUMBER(SLOT_TRUNCATED);
    NUMBER(SLOT_CHECKSUM_PARTIAL);
    NUMBER(SLOT_GSO);
    NUMBER(SLOT_VLAN_STRIPPED);
    NUMBER(SLOT_FRAGMENT_FALLBACK);
    NUMBER(SLOT_SHARED);
    return 0;
}
