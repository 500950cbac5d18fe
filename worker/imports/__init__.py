"""Catalogue files: from bytes to checked rows, and from rows to committed items.

Reading, one row at a time:

    formats      is it CSV, NDJSON, Parquet or a ZIP?          detect_format
    archive      a ZIP that nobody needs to trust               open_archive -> Archive
      archive_safety                                            what a ZIP must not be
    catalogue    one file, row by row, as often as needed       open_catalogue -> CatalogueReader
      csv_file, ndjson_file, parquet_file                       bytes -> Record
      text                                                      bytes -> lines of bounded length
      columns                                                   which column is id, title, image or attribute
      rows                                                      Record -> CatalogueRow, or RejectedRow with its reason
    attributes   one type for each attribute                    infer_types, convert_rows
    images       the photo that a row names                     ImageSource

Importing, some rows at a time:

    run          plan, chunks, end                              ImportRunner
    near_duplicates                                             which imported items look like another
    plan         what chunks there are and what became of them  plan_import, Chunks
    sources      the file and the photos that a job names       open_import
    intake       rows with photos to a change of the catalogue  Intake
      photo_line  photos side by side: read, decode, embed      PhotoLine
      photo_work  the single steps                              PhotoWork

What is wrong with the file as a whole raises InvalidImport, before the first row where that can be known by then.
What is wrong with one row is a RejectedRow among the others and never stops the rest. Memory does not grow with the
file, but for its ids.

    kind = detect_format(file, name, stated)
    archive = open_archive(file, max_unpacked_bytes=..., max_member_bytes=...) if kind == "zip" else None
    if archive:
        file, name = archive.open_manifest(), archive.manifest_name
    catalogue = open_catalogue(file, name, columns=columns, encoding=encoding)
    types = infer_types(catalogue, known, values_are_text=catalogue.values_are_text)   # first pass
    for row in convert_rows(catalogue, types):                                           # second pass
        ...
"""
